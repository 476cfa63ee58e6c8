"""Replay counts what it should, and rewrites of whole files are as quick as they must be."""

from __future__ import annotations

import random

import numpy as np
import pytest

from atlasd.draft.lookahead import Chain, Lookahead, Noise
from atlasd.draft.registry import Drafting
from bench.replay.baselines import LastOccurrence, Plain, SuffixTree
from bench.replay.costs import GPU
from bench.replay.routers import ArcticHybrid, HvdRouter, MovingAverage, NgramMapK, StaticAlone
from bench.replay.run import run_drafting, run_rule
from bench.replay.static import Priced, Static, TargetStates, priced_neural
from bench.replay.workload import Request, Workload

VOCABULARY = 3000


def rewrites(files: int, tokens: int = 900, edits: int = 6) -> Workload:
    """Files of random lines, rewritten with renames, deletions and insertions in some places."""
    draw = random.Random(5)
    words = [[draw.randrange(10, VOCABULARY) for _ in range(9)] for _ in range(60)]
    workload = Workload("rewrites")
    for number in range(files):
        old: list[int] = []
        while len(old) < tokens:
            old += [*draw.choice(words)[: draw.randrange(4, 10)], 3]
        new = list(old)
        for _ in range(edits):
            at = draw.randrange(20, len(new) - 20)
            removed = draw.choice((0, 1, 1, 3))
            new[at : at + removed] = [
                draw.randrange(10, VOCABULARY) for _ in range(draw.randrange(0, 4))
            ]
        workload.requests.append(
            Request("r", "python", str(number), (), old, [*new, 0], prediction=old)
        )
    return workload


def drafting() -> Drafting:
    return Drafting(vocab_size=VOCABULARY, fingerprint="test", costs=GPU)


def test_whole_file_rewrites_are_five_times_as_quick_as_plain_decoding() -> None:
    outcome = run_drafting(rewrites(6), drafting(), GPU)
    assert outcome.speedup >= 5.0
    assert outcome.tokens == sum(len(request.text) for request in rewrites(6).requests)


class Positioned:
    """A target whose state tells the row's token and position."""

    states = np.empty((0, 2), np.float32)

    def forward(
        self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        self.states = np.stack([tokens[rows], positions[rows]], 1).astype(np.float32)
        return np.zeros((len(rows), VOCABULARY), np.float32)


class Foreseeing:
    """A drafter that knows the text, is wrong at every third token, and notes what it is given."""

    slots, slot_tokens, carries = 1, 4096, True

    def __init__(self, text: list[int]) -> None:
        self.text = text
        self.given: dict[int, list[float]] = {}

    def read(self, tokens: np.ndarray, slot: int, position: int) -> None: ...

    def chain(self, ask: Lookahead) -> Chain:
        at = ask.noise.output_index
        if ask.chose is not None:
            self.given[at] = ask.chose[0].tolist()
        said = [token + (at % 3 == 0) for at, token in enumerate(self.text)]
        tokens = said[at : at + min(3, ask.limit)]
        return tokens, [0.9] * len(tokens)

    def memory_bytes(self) -> dict[str, int]:
        return {}


@pytest.mark.parametrize(("prompt", "text"), [(5, 30), (70, 30), (3000, 2500)])
def test_a_text_is_read_by_the_rows_before_its_tokens(prompt: int, text: int) -> None:
    states = TargetStates(Positioned())  # type: ignore[arg-type]
    found = states.of(range(10_000, 10_000 + prompt), range(20_000, 20_000 + text))
    assert found.shape == (text, 2)
    assert found[0, 0] == 10_000 + prompt - 1
    assert np.array_equal(found[1:, 0], np.arange(20_000, 20_000 + text - 1))
    assert found[:, 1].max() < 2048
    assert np.diff(found[:, 1]).max() == 1


def test_every_rule_gets_through_the_text_and_pays_for_its_static_drafter() -> None:
    work = rewrites(1, tokens=120)
    text = work.requests[0].text
    for build in (
        lambda model: Plain(),
        lambda model: LastOccurrence(4),
        lambda model: SuffixTree(),
        lambda model: MovingAverage(),
        lambda model: NgramMapK(),
        lambda model: StaticAlone(model, 2),
        ArcticHybrid,
        HvdRouter,
    ):
        model = Priced(Foreseeing(text), 1.0)
        outcome = run_rule(work, build(model), GPU, static=Static(model))
        assert outcome.tokens == len(text)
        assert outcome.target_ms >= outcome.steps * GPU.ms(1, 0) + model.spent_ms


def test_a_chain_is_paid_for_by_the_tokens_that_were_computed() -> None:
    model = Priced(Foreseeing([7] * 20), 1.0)
    noise = Noise(0.0, 0, 0, 0)
    assert len(model.chain(Lookahead([1], 0, 0, 0, 2, 0.0, noise))[0]) == 2
    assert model.spent_ms == 2.0
    # The token after the third was computed to see that the chain ends there.
    assert len(model.chain(Lookahead([1], 0, 0, 0, 8, 0.0, noise))[0]) == 3
    assert model.spent_ms == 6.0


def test_a_drafter_that_carries_states_is_given_the_one_that_chose_the_last_token() -> None:
    work = rewrites(1, tokens=120)
    request = work.requests[0]
    drafter = Foreseeing(request.text)
    static = Static(Priced(drafter, 0.01), TargetStates(Positioned()))  # type: ignore[arg-type]
    run_drafting(
        work,
        Drafting(
            vocab_size=VOCABULARY,
            fingerprint="",
            costs=GPU,
            neural=priced_neural(static.model, eager=True),
        ),
        GPU,
        static=static,
    )
    assert drafter.given
    behind = [*request.prompt, *request.text]
    for at, (token, _) in drafter.given.items():
        # The stream's last token is the text's before ``at``; the row before that chose it.
        assert token == behind[len(request.prompt) + at - 2]
