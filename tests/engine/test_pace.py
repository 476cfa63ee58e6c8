"""Drafting rests where it loses, within a budget, and is back where it wins."""

from __future__ import annotations

from atlasd.draft.drafter import StreamView
from atlasd.engine.calibration import KEPT, Calibration, Calibrations, calibration_key
from atlasd.engine.pace import (
    EARLY,
    FIRST_REST,
    LATE,
    LONGEST_REST,
    PROBE,
    SORTS,
    Pace,
    Usual,
)


def planned(pace: Pace, steps: int, gained_ms: float, spent_ms: float, plain_ms: float) -> int:
    """How many of so many steps were planned."""
    count = 0
    for _ in range(steps):
        if pace.due():
            count += 1
            pace.settled(gained_ms, spent_ms, plain_ms)
    return count


def test_a_stream_in_which_drafts_hold_is_always_planned():
    assert planned(Pace(0.0), 100, gained_ms=1.0, spent_ms=0.2, plain_ms=1.5) == 100


def test_where_nothing_holds_planning_takes_one_per_cent_or_so():
    steps = 400
    for spent_ms, plain_ms in [(0.2, 1.5), (0.05, 1.5), (0.2, 100.0), (0.4, 1.5)]:
        count = planned(Pace(0.0), steps, 0.0, spent_ms, plain_ms)
        budget = max(0.012 * steps * plain_ms / spent_ms, steps / LONGEST_REST + 8)
        assert count <= budget
        assert count >= steps / LONGEST_REST - 1


def test_drafting_is_back_once_a_draft_holds():
    pace = Pace(0.0)
    planned(pace, 200, 0.0, 0.2, 1.5)
    assert planned(pace, LONGEST_REST + 10, 4.0, 0.2, 1.5) >= 10


def test_an_attempt_after_a_rest_drafts_little_and_the_one_after_it_all_that_pays():
    pace = Pace(0.0)
    assert pace.limit(40) == 40
    planned(pace, 60, 0.0, 0.2, 1.5)
    assert pace.limit(40) == PROBE
    assert pace.limit(1) == 1
    pace.settled(gained_ms=PROBE * 1.5, spent_ms=0.2, plain_ms=1.5)
    assert pace.limit(40) == 40
    assert Pace(-0.1).limit(40) == PROBE


def test_a_stream_begins_with_the_credit_of_the_others():
    assert planned(Pace(1.0), 20, 0.0, 0.2, 1.5) > planned(Pace(-1.0), 20, 0.0, 0.2, 1.5)


def test_where_others_lost_a_stream_is_first_tried_after_a_few_steps():
    for usual, steps in [(0.0, 0), (1.0, 0), (-0.1, FIRST_REST - 1)]:
        pace = Pace(usual)
        assert [pace.due() for _ in range(steps + 1)] == [False] * steps + [True]
        # What held there is gained at once, whatever others lost.
        pace.settled(gained_ms=2.0, spent_ms=0.2, plain_ms=1.5)
        assert pace.due()


def test_where_others_lost_few_streams_of_a_dozen_tokens_are_tried_but_some_are():
    tried = [planned(Pace(-0.1, turn), 16, 0.0, 0.2, 1.5) > 0 for turn in range(3 * EARLY)]
    assert tried.count(True) == 3
    assert planned(Pace(-0.1, 1), LATE - 1, 0.0, 0.2, 1.5) == 0
    assert planned(Pace(-0.1, 1), LATE, 0.0, 0.2, 1.5) == 1
    assert planned(Pace(0.0, 1), 16, 0.0, 0.2, 1.5) > 0


def test_calibrations_keep_the_last_used_models():
    calibrations = Calibrations()
    for number in range(KEPT + 3):
        calibrations.put(f"model {number}", Calibration(number, b"x"))
    calibrations.put("model 5", Calibration(55, b"y"))
    again = Calibrations()
    again.restore(calibrations.payload())
    again.restore(b"nonsense")
    assert again.get("model 0") is None
    assert again.get("model 5") == Calibration(55, b"y")
    assert again.get(f"model {KEPT + 2}") is not None


def test_calibrations_are_of_one_model_loaded_in_one_way():
    keys = {
        calibration_key("a", "bf16"),
        calibration_key("a", "fp32"),
        calibration_key("b", "bf16"),
    }
    assert len(keys) == 3
    assert calibration_key("a", "bf16") in keys


def stream_of(repository: str, temperature: float) -> StreamView:
    return StreamView(1, [1, 2], 2, repository, "python", temperature=temperature)


def test_streams_that_sample_freely_begin_at_rest_and_others_do_not():
    usual = Usual()
    free, greedy = usual.of(stream_of("r", 1.2)), usual.of(stream_of("r", 0.0))
    for _ in range(40):
        usual.follow(free, -0.1)
        usual.follow(greedy, 0.4)
    assert usual.of(stream_of("r", 1.2)).net_ms < 0 < usual.of(stream_of("r", 0.0)).net_ms
    # Of another repository nothing is known: it begins with what holds for all.
    assert usual.of(stream_of("s", 0.0)).net_ms > 0
    assert [usual.of(stream_of("s", 0.0)).turn() for _ in range(3)] == [0, 1, 2]


def test_sorts_of_streams_are_forgotten_in_time():
    usual = Usual()
    usual.of(stream_of("first", 0.0)).net_ms = -9.0
    for number in range(SORTS):
        usual.of(stream_of(str(number), 0.0))
    assert usual.of(stream_of("first", 0.0)).net_ms == 0.0
