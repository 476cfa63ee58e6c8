"""Poisoned traffic must not make a later workload slower than 0.98 of plain decoding.

Counted, not timed: a step costs what its rows cost, a drafted token of the neural drafter what it
costs, and both are given. What the text drafters take is measured elsewhere (bench.controller).
"""

from __future__ import annotations

import numpy as np
import pytest

from atlasd.draft.drafter import StreamView
from atlasd.draft.neural import Neural, Noise
from atlasd.draft.registry import Drafting
from atlasd.learn.learner import Learner
from tests.unit.learning import VOCAB, Table, walk

pytestmark = pytest.mark.slow

TOKEN_MS = 0.06
SUCCESSOR = np.random.default_rng(5).permutation(VOCAB)
OTHER = np.random.default_rng(6).permutation(VOCAB)


class SteepCosts:
    """Verifying is dear, as on a CPU."""

    def ms(self, rows: int, kv_tokens: int) -> float:
        return 1.0 + 0.08 * (rows - 1)

    def bucket(self, rows: int) -> int:
        return rows


class TimedTable(Table):
    """Knows how long it has drafted."""

    spent_ms = 0.0

    def chain(
        self, last: int, slot: int, position: int, limit: int, least: float, noise: Noise
    ) -> tuple[list[int], list[float]]:
        # The table says 0.9 of every token; a chain ends where its reach falls below ``least``.
        limit = min(limit, 1 + int(np.log(max(least, 0.02)) / np.log(0.9)))
        self.spent_ms += TOKEN_MS * limit
        return super().chain(last, slot, position, limit, least, noise)

    def corrected(self, *weights: np.ndarray):
        made = super().corrected(*weights)
        inner = made.chain

        def chain(last, before, slot, position, limit, least, noise):
            limit = min(limit, 1 + int(np.log(max(least, 0.02)) / np.log(0.9)))
            self.spent_ms += TOKEN_MS * limit
            return inner(last, before, slot, position, limit, least, noise)

        made.chain = chain
        return made


class System:
    def __init__(self) -> None:
        self.table = TimedTable()
        self.costs = SteepCosts()
        neural = Neural(self.table, now=lambda: self.table.spent_ms / 1e3)
        neural.token_ms, neural.read_ms = TOKEN_MS, 0.0
        self.drafting = Drafting(vocab_size=VOCAB, fingerprint="", costs=self.costs, neural=neural)
        self.learner = Learner(self.table, neural, self.costs)
        self.drafting.learn_with(self.learner, self.learner)
        self.number = 0

    def serve(self, text: list[int], repository: str = "/r") -> float:
        """Decode a text behind its first 8 tokens; milliseconds it would have taken."""
        controller, start = self.drafting.controller, self.table.spent_ms
        self.number += 1
        stream = StreamView(self.number, text[:8], 8, repository, "python")
        controller.begin(stream)
        spent = 0.0
        while (at := len(stream.tokens)) < len(text):
            draft = controller.plan([stream], 16, [len(text) - at - 1]).drafts[0]
            accepted = 0
            while accepted < len(draft.tokens) and draft.tokens[accepted] == text[at + accepted]:
                accepted += 1
            new = text[at : at + accepted + 1]
            step = self.costs.ms(1 + len(draft.tokens), 0)
            stream.tokens += new
            controller.settle(stream, draft, accepted, new, None, step)
            spent += step
        controller.end(stream)
        return spent + self.table.spent_ms - start

    def learn(self) -> None:
        while self.learner.idle(50.0):
            pass


def random_text(seed: int, length: int = 72) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, length).tolist()


@pytest.mark.parametrize("later", ["another text", "random text", "what the static drafter says"])
def test_poisoned_traffic_makes_no_later_workload_slower_than_plain(later: str) -> None:
    system = System()
    for seed in range(72):  # teaches one thing, in part by noise nobody could learn
        system.serve(walk(SUCCESSOR, 72, seed) if seed % 6 else random_text(seed))
        if seed % 10 == 9:
            system.learn()
    assert system.learner.repositories.of("/r").versions.latest >= 1
    says = np.array([system.table.says(token) for token in range(VOCAB)])
    spent, tokens = 0.0, 0
    for seed in range(100, 108):
        text = {
            "another text": lambda s: walk(OTHER, 136, s),
            "random text": lambda s: random_text(s, 136),
            "what the static drafter says": lambda s: walk(says, 136, s),
        }[later](seed)
        spent += system.serve(text)
        tokens += len(text) - 8
        if seed % 4 == 3:
            system.learn()
    plain = tokens * system.costs.ms(1, 0)
    assert plain / spent >= 0.98
