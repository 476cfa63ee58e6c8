"""The promotion gate: what steps cost, and how often it is wrong."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.learn.gate import LEAST, LOOKAHEADS, Watch, lower_bound, play, still_gains


def step_ms(rows: int) -> float:
    return 1.0 + 0.04 * (rows - 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_playing_is_stepping_through_the_text(hits: list[bool]) -> None:
    played = play(np.array(hits), step_ms, 0.1)
    for lookahead, spent in zip(LOOKAHEADS, played, strict=True):
        at, steps = 0, 0
        while at < len(hits):
            accepted = 0
            while accepted < lookahead and at + accepted < len(hits) and hits[at + accepted]:
                accepted += 1
            at += accepted + 1
            steps += 1
        cost = step_ms(1 + lookahead) + lookahead * 0.1
        assert spent == pytest.approx(steps * cost * len(hits) / at)


def passages(rate: float, count: int, draw: np.random.Generator) -> list[np.ndarray]:
    """Played passages of a drafter that is right so often; passages differ from each other."""
    rates = np.clip(rate + draw.normal(0, 0.1, count), 0.02, 0.98)
    return [play(draw.random(64) < p, step_ms, 0.1) for p in rates]


def promotions(better_by: float, seeds: int, looks: int) -> int:
    """Of so many repositories, in how many a candidate of this quality gets through one of
    ``looks`` looks, each at a little more text than the one before."""
    promoted = 0
    for seed in range(seeds):
        draw = np.random.default_rng(seed)
        static, new = passages(0.4, 64, draw), passages(0.4 + better_by, 64, draw)
        sizes = np.linspace(LEAST, 64, looks).astype(int)
        promoted += any(
            lower_bound(static[:n], new[:n]) > 0 and still_gains(static[:n], new[:n]) for n in sizes
        )
    return promoted


def test_a_worse_adapter_gets_through_in_at_most_a_few_of_a_hundred_repositories() -> None:
    assert promotions(-0.02, 100, 6) <= 3


def test_one_that_is_no_better_gets_through_seldom() -> None:
    assert promotions(0.0, 100, 6) <= 6


def test_one_that_is_clearly_better_gets_through() -> None:
    assert promotions(0.15, 20, 6) >= 19


def test_nothing_is_decided_on_too_little() -> None:
    draw = np.random.default_rng(0)
    few = LEAST - 1
    assert lower_bound(passages(0.1, few, draw), passages(0.9, few, draw)) == -np.inf
    watch = Watch()
    for bad, good in zip(passages(0.1, few, draw), passages(0.9, few, draw), strict=True):
        watch.note(good, bad, good)
    assert watch.pays
    assert not watch.good_pays


def test_a_version_that_is_worse_is_noticed_within_a_few_passages() -> None:
    noticed = []
    for seed in range(20):
        draw = np.random.default_rng(seed)
        watch, seen = Watch(), 0
        while watch.pays and seen < 100:
            static = passages(0.5, 1, draw)[0]
            watch.note(static, passages(0.3, 1, draw)[0], passages(0.8, 1, draw)[0])
            seen += 1
        noticed.append(seen)
        assert watch.good_pays
        assert watch.good_is_back
    assert np.median(noticed) <= LEAST + 2
    assert max(noticed) < 40
