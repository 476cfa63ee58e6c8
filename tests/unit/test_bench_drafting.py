"""What the comparison of drafting on and off makes of timings."""

from __future__ import annotations

from typing import Any

import pytest

from bench.drafting import Comparison


def timings(tokens: int, ms: float, steps: int) -> dict[str, Any]:
    return {
        "predicted_n": tokens,
        "predicted_ms": ms,
        "predicted_per_second": 1000 * tokens / ms,
        "steps": steps,
        "drafted": {"positions": 3},
        "accepted": {"positions": 2},
    }


def test_each_way_is_judged_by_the_tokens_it_decoded() -> None:
    """Where tokens come quicker more of them come before the engine is told to stop."""
    done = Comparison()
    done.add({True: "x", False: "x"}, {True: timings(120, 10.0, 12), False: timings(20, 5.0, 20)})
    assert done.speed(True) == pytest.approx(12_000)
    assert done.speed(False) == pytest.approx(4_000)
    assert done.tokens_a_step == pytest.approx(10)
    assert done.ratios == [pytest.approx(3)]
    assert (done.drafted, done.accepted) == ({"positions": 3}, {"positions": 2})


def test_a_text_of_one_token_says_nothing_of_speed_but_must_be_the_same() -> None:
    done = Comparison()
    done.add({True: "x", False: "y"}, {True: timings(1, 1.0, 1), False: timings(1, 1.0, 1)})
    assert done.different == 1
    assert done.ratios == []
