"""What asking a drafter brings and costs: asked where it pays, tried now and then where not."""

from __future__ import annotations

from math import exp, inf

import pytest

from atlasd.draft.worth import PROBING, Record, Worth, added

PER_MS = 0.1  # tokens achieved: a step of 10 ms
ASK_MS = 3.0


def gain(worth: Worth, record: Record, read_ms: float) -> float:
    """Of asking where nobody else has anything to say."""
    brought, cost = worth.terms(record, True, PER_MS, ASK_MS, read_ms)
    return added(brought, 0.0) - cost


def played(worth: Worth, record: Record, steps: int, brings: int, read_ms: float = 0.0) -> float:
    """Milliseconds that asking took over so many steps, each ask bringing so many tokens; the first
    has to read the prompt."""
    spent = 0.0
    for _ in range(steps):
        if gain(worth, record, read_ms) > 0:
            worth.asked(record, ASK_MS)
            spent += ASK_MS + read_ms
            read_ms = 0.0
            worth.foretold(record, brings)
    return spent


def test_a_drafter_that_brings_nothing_costs_next_to_nothing() -> None:
    worth = Worth()
    record = worth.begin()
    played(worth, record, 100, brings=0)
    spent = played(worth, record, 5000, brings=0)
    assert 0 < spent <= PROBING * 5000 / PER_MS + ASK_MS


@pytest.mark.parametrize("read_ms", [0.0, 30.0])
def test_a_drafter_that_has_become_good_is_found_out(read_ms: float) -> None:
    worth = Worth()
    record = worth.begin()
    played(worth, record, 200, brings=0)
    spent = played(worth, record, 4000, brings=2, read_ms=read_ms)
    assert spent > 1000 * ASK_MS


def test_an_ask_adds_less_the_more_is_known_without_it() -> None:
    assert added(0.0, 0.5) == 0.0
    assert added(inf, 3.0) == inf
    assert added(1.0, 0.0) == 1.0
    # E[max(0, N - T)] of an exponential N, by adding it up.
    grid = [0.001 * at for at in range(40_000)]
    summed = sum(max(0.0, n - 1.5) * exp(-n / 0.8) / 0.8 * 0.001 for n in grid)
    assert added(0.8, 1.5) == pytest.approx(summed, rel=0.01)


def test_short_streams_make_reading_a_prompt_dear() -> None:
    worth = Worth()
    dear = {}
    for asks in (1, 40):
        for _ in range(60):
            record = worth.begin()
            for _ in range(asks):
                worth.asked(record, ASK_MS)
                worth.foretold(record, 1)
            worth.end(record)
        dear[asks] = gain(worth, worth.begin(), 20.0)
    assert dear[1] < 0 < dear[40]


def test_nothing_is_tried_before_it_was_saved_for() -> None:
    worth = Worth()
    record = worth.begin()
    record.brought = worth.brought = 0.0
    tries = [gain(worth, record, 50.0) == inf for _ in range(1200)]
    first = tries.index(True)
    assert PROBING * (first + 1) / PER_MS == pytest.approx(ASK_MS + 50.0, abs=PROBING / PER_MS)
