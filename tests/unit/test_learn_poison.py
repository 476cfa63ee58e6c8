"""Poisoned traffic must not make a later workload slower than 0.98 of plain decoding.

The engine is the real one, with its planning, pacing and costs; the target says recorded text.
Time is counted, not measured: a step takes what its rows take, a token of the static drafter and
planning a stream's step what they take, and all are given.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from atlasd_kernels.cpu.correction import LowRank

from atlasd.draft.lookahead import Chain, Chains, Lookahead
from atlasd.draft.neural import Neural
from atlasd.draft.registry import Drafting
from atlasd.engine.clock import Moment, StepClock
from atlasd.engine.costs import ROWS, StepCosts
from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.planning import Planning
from atlasd.engine.steps import Engine
from atlasd.learn.learner import Learner
from bench.replay.costs import CPU
from tests.unit.learning import VOCAB, Table, walk

pytestmark = pytest.mark.slow

TOKEN_MS, PLAN_MS = 0.35, 0.04
PROMPT, LATER = 8, 264
"""Tokens of a prompt, and of a text of the later workload."""
SUCCESSOR = np.random.default_rng(5).permutation(VOCAB)
OTHER = np.random.default_rng(6).permutation(VOCAB)


def step_ms(rows: int) -> float:
    """As measured with the bundled model on two cores (``bench.replay.costs``): rows are dear."""
    return CPU.ms(rows, 0)


class Counted(StepClock):
    """Milliseconds that were counted so far."""

    spent_ms = 0.0

    def now(self) -> Moment:
        return self.own(), 0.0

    def ms_since(self, began: Moment) -> float:
        return (self.own() - began[0]) * 1e3

    def own(self) -> float:
        return self.spent_ms / 1e3


class Recorded:
    """A target that says ``text``, whatever it reads."""

    vocab_size, slots, slot_tokens = VOCAB, 2, 512
    prefill_chunk, prefill_rows = 1, 64

    def __init__(self, clock: Counted) -> None:
        self.clock = clock
        self.text = np.zeros(1, np.int32)

    def bucket(self, rows: int) -> int:
        return rows

    def forward(self, tokens, slots, positions, wanted, *, prefill=False) -> np.ndarray:
        if not prefill:
            self.clock.spent_ms += step_ms(len(tokens))
        next_tokens = self.text[np.minimum(positions[wanted] + 1, len(self.text) - 1)]
        return np.eye(VOCAB, dtype=np.float32)[next_tokens]

    def copy_prefix(self, source: int, target: int, length: int) -> None: ...

    def memory_bytes(self) -> dict[str, int]:
        return {}

    def close(self) -> None: ...


class TimedTable(Table):
    """What it drafts takes time, with a correction as without."""

    def __init__(self, clock: Counted) -> None:
        super().__init__()
        self.clock = clock

    def timed(self, ask: Lookahead) -> Lookahead:
        # The table says 0.9 of every token; a chain ends where its reach falls below ``least``.
        limit = min(ask.limit, int(np.log(max(ask.least, 0.02)) / np.log(0.9)))
        self.clock.spent_ms += TOKEN_MS * (limit + 1)
        return replace(ask, limit=limit)

    def chain(self, ask: Lookahead) -> Chain:
        return super().chain(self.timed(ask))

    def corrected(self, weights: LowRank) -> Chains:
        made = super().corrected(weights)
        chain = made.chain
        made.chain = lambda ask: chain(self.timed(ask))
        return made


class System:
    """All of it, but for the processes."""

    def __init__(self) -> None:
        self.clock = Counted()
        self.table = TimedTable(self.clock)
        self.target = Recorded(self.clock)
        costs = StepCosts(self.target.bucket)
        for rows in ROWS:
            costs.measure(rows, 0, step_ms(rows))
        neural = Neural(self.table, now=self.clock.own)
        neural.token_ms, neural.read_ms = TOKEN_MS, 0.0
        self.drafting = Drafting(vocab_size=VOCAB, fingerprint="", costs=costs, neural=neural)
        plan = self.drafting.controller.plan

        def timed(streams, *rest):
            self.clock.spent_ms += PLAN_MS * len(streams)
            return plan(streams, *rest)

        self.drafting.controller.plan = timed
        self.learner = Learner(self.table, neural, costs, promoted=self.drafting.promoted, seed=1)
        self.drafting.learn_with(self.learner, self.learner)
        self.outputs = Outputs()
        self.engine = Engine(
            self.target,
            self.outputs.take,
            planning=Planning(self.drafting.controller, costs, self.clock),
            costs=costs,
            clock=self.clock,
        )
        self.number = 0

    def serve(self, text: list[int]) -> float:
        """Decode a text behind its prompt; milliseconds that it took."""
        self.target.text = np.array(text, np.int32)
        began = self.clock.spent_ms
        self.number += 1
        submit = request(self.number, text[:PROMPT], max_tokens=len(text) - PROMPT)
        submit.repository, submit.language = "/r", "python"
        self.engine.submit(submit)
        run(self.engine)
        assert self.outputs.pop(self.number).tokens == text[PROMPT:]
        return self.clock.spent_ms - began

    def learn(self) -> None:
        while self.drafting.idle(50.0):
            pass


def random_text(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, length).tolist()


def poisoned() -> System:
    """Was taught one thing, in part by noise nobody could learn."""
    system = System()
    for seed in range(72):
        system.serve(walk(SUCCESSOR, 72, seed) if seed % 6 else random_text(seed, 72))
        if seed % 10 == 9:
            system.learn()
    assert system.learner.repositories.of("/r").versions.latest >= 1
    return system


WORKLOADS = {
    "another text": lambda system, seed: walk(OTHER, LATER, seed),
    "random text": lambda system, seed: random_text(seed, LATER),
    "what the static drafter says": lambda system, seed: walk(
        np.array([system.table.says(token) for token in range(VOCAB)]), LATER, seed
    ),
}


@pytest.mark.parametrize("later", WORKLOADS)
def test_poisoned_traffic_makes_no_later_workload_slower_than_plain(later: str) -> None:
    system = poisoned()
    spent, steps = 0.0, 0
    for seed in range(100, 108):
        text = WORKLOADS[later](system, seed)
        spent += system.serve(text)
        steps += len(text) - PROMPT - 1  # the first token comes with the prompt
        if seed % 4 == 3:
            system.learn()
    assert steps * step_ms(1) / spent >= 0.98
