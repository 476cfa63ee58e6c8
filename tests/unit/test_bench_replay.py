"""Replay counts what it should, and rewrites of whole files are as quick as they must be."""

from __future__ import annotations

import random

import numpy as np
import pytest

from atlasd.draft.registry import Drafting
from bench.replay.baselines import LastOccurrence, Plain, SuffixTree
from bench.replay.costs import GPU
from bench.replay.routers import ArcticHybrid, HvdRouter, MovingAverage, NgramMapK, StaticAlone
from bench.replay.run import Static, run_drafting, run_rule
from bench.replay.static import Readings, static_drafter
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


class Foreseeing:
    """A decoder that is right at every second token: logits from the recorded text itself."""

    def __init__(self, text: list[int]) -> None:
        self.text = text

    def forward(
        self, tokens: np.ndarray, slots: np.ndarray, positions: np.ndarray, rows: np.ndarray
    ) -> np.ndarray:
        logits = np.zeros((len(rows), VOCABULARY), np.float32)
        for row, at in enumerate(positions[rows]):
            logits[row, self.text[at + 1] if at % 2 else 1] = 5.0
        return logits


@pytest.mark.parametrize("length", [5, 70, 200])
def test_readings_are_the_choices_behind_each_token_of_the_text(length: int) -> None:
    prompt, text = list(range(100, 100 + length)), list(range(500, 530))
    choices, chances = Readings(Foreseeing([*prompt, *text])).of(prompt, text)  # type: ignore[arg-type]
    assert len(choices) == len(chances) == len(text)
    for at, token in enumerate(text):
        assert choices[at] == (token if (length - 1 + at) % 2 else 1)


def test_every_rule_gets_through_the_text_and_pays_for_its_static_drafter() -> None:
    work = rewrites(1, tokens=120)
    request = work.requests[0]
    readings = Readings(Foreseeing([*request.prompt, *request.text]))  # type: ignore[arg-type]
    _, recorded = static_drafter(1.0)
    static = Static(readings, recorded)
    rules = [Plain(), LastOccurrence(4), SuffixTree(), MovingAverage(), NgramMapK()]
    rules += [StaticAlone(recorded, 2), ArcticHybrid(recorded), HvdRouter(recorded)]
    for rule in rules:
        outcome = run_rule(work, rule, GPU, static=static)
        assert outcome.tokens == len(request.text)
        assert outcome.target_ms > 0
    assert recorded.spent_ms > 0
