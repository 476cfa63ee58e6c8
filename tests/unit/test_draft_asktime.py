"""What asking a drafter takes, told apart by asks of different lengths."""

from __future__ import annotations

from random import Random

import pytest

from atlasd.draft.asktime import AskTime


def test_what_asking_takes_at_all_is_told_from_what_a_token_takes() -> None:
    draw, time = Random(1), AskTime(0.05)
    for _ in range(200):
        tokens = draw.randint(1, 8)
        time.observe(tokens, 0.12 + 0.02 * tokens)
    assert time.token_ms == pytest.approx(0.02, abs=0.01)
    assert time.of(4) == pytest.approx(0.2, rel=0.1)


def test_where_all_asks_are_alike_the_measured_time_of_a_token_stays() -> None:
    time = AskTime(0.02)
    for _ in range(100):
        time.observe(3, 0.2)
    assert time.token_ms == pytest.approx(0.02)
    assert time.of(3) == pytest.approx(0.2)


def test_a_hiccup_changes_little_and_no_term_is_negative() -> None:
    time = AskTime(0.02)
    for tokens in (1, 4) * 20:
        time.observe(tokens, 0.1)
    time.observe(8, 50.0)
    assert 0.0 < time.token_ms < 0.1
    assert 0.0 <= time.fixed_ms < 0.2
    for _ in range(50):
        time.observe(6, 0.01)
    assert time.token_ms > 0.0
    assert time.fixed_ms >= 0.0
