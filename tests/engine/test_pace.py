"""Drafting rests where it loses, within a budget, and is back where it wins."""

from __future__ import annotations

from atlasd.draft.drafter import StreamView
from atlasd.engine import calibration
from atlasd.engine.calibration import KEPT, Calibration, Calibrations, calibration_key
from atlasd.engine.pace import (
    BUDGET,
    EARLY,
    EVIDENCE,
    LATE,
    LONGEST_REST,
    LOST,
    SELDOM,
    SORTS,
    WORTH_BEGINNING,
    Mean,
    Pace,
    Usual,
)

STREAM = 16
"""Planned steps of a stream."""

PLENTY = 1000
"""Tokens that are left."""


def due(pace: Pace, begun: bool, left: int) -> bool:
    """Whether the next step is planned; it is over then."""
    if not pace.resting(begun, left):
        return True
    pace.rested(1)
    return False


def planned(pace: Pace, steps: int, gained_ms: float, spent_ms: float, plain_ms: float) -> int:
    """How many of so many steps were planned."""
    count = 0
    for _ in range(steps):
        if due(pace, True, PLENTY):
            count += 1
            pace.settled(gained_ms, spent_ms, plain_ms)
    return count


def after(net: float, steps: int = 1000) -> Mean:
    """A sort of which so many steps brought ``net`` each."""
    mean = Mean()
    for _ in range(steps):
        mean.follow(net)
    for _ in range(steps // STREAM):
        mean.ended(net * STREAM)
    return mean


def test_a_stream_in_which_drafts_hold_is_always_planned():
    assert planned(Pace(Mean()), 100, gained_ms=1.0, spent_ms=0.2, plain_ms=1.5) == 100


def test_a_stream_in_which_drafts_hold_now_and_then_is_always_planned():
    pace, count = Pace(Mean()), 0
    for step in range(200):
        if due(pace, True, PLENTY):
            count += 1
            pace.settled(0.8 if step % 4 == 3 else 0.0, 0.1, 1.0)
    assert count >= 190


def test_where_nothing_holds_planning_takes_little_more_than_its_budget():
    steps = 2000
    for spent_ms, plain_ms in [(0.05, 0.5), (0.05, 1.5), (0.2, 100.0), (0.1, 1.0)]:
        count = planned(Pace(Mean()), steps, 0.0, spent_ms, plain_ms)
        assert count * spent_ms <= 1.3 * BUDGET * steps * plain_ms + LONGEST_REST * spent_ms
        assert count >= steps / LONGEST_REST - 1


def test_drafting_is_back_once_drafts_hold():
    pace = Pace(Mean())
    planned(pace, 200, 0.0, 0.1, 1.0)
    assert planned(pace, 3 * LONGEST_REST, 3.0, 0.1, 1.0) >= LONGEST_REST


def test_text_that_was_easy_buys_two_dozen_attempts():
    pace = Pace(Mean())
    planned(pace, 500, 5.0, 0.1, 1.0)
    count = 0
    while due(pace, True, PLENTY):
        pace.settled(0.0, 0.1, 1.0)
        count += 1
    assert 16 <= count <= 64


def test_a_stream_begins_with_what_is_usual():
    well, badly = Pace(after(0.5)), Pace(after(-0.01))
    assert planned(well, 20, 0.0, 0.1, 1.0) > planned(badly, 20, 0.0, 0.1, 1.0)
    assert Pace(after(9.0)).net < 1.0


def test_a_sort_that_lost_by_chance_is_not_losing():
    assert not after(-0.1, EVIDENCE).losing
    assert after(-0.1, 4 * EVIDENCE).losing


def test_a_sort_is_losing_where_taking_streams_up_costs_more_than_drafts_bring():
    mean = Mean()
    streams = 0
    while not mean.losing:
        pace = Pace(mean)
        pace.took(0.4, 0.5)
        for _ in range(8):
            pace.settled(0.08, 0.05, 0.5)
        pace.took(0.2, 0.5)
        pace.ended()
        streams += 1
        assert streams < 30
    assert mean.net > 0


def test_where_others_lost_few_streams_are_tried_early():
    mean = after(-0.1)
    first = []
    for _ in range(SELDOM):
        pace, steps = Pace(mean), 0
        while not due(pace, False, PLENTY):
            steps += 1
        first.append(steps)
    assert sorted(set(first)) == [0, LATE - 1]
    assert 1 <= first.count(0) <= SELDOM // (4 * EARLY), "much was lost"


def test_where_others_lost_a_stream_that_is_nearly_over_is_not_taken_up():
    mean = after(-0.1)
    assert due(Pace(mean), False, 1), "one of many is tried in any case"
    pace = Pace(mean)
    assert pace.resting(False, WORTH_BEGINNING - 1) == WORTH_BEGINNING
    assert pace.resting(False, WORTH_BEGINNING) == LATE - 1
    assert not any(due(pace, False, WORTH_BEGINNING - 1) for _ in range(LATE))
    assert due(pace, False, WORTH_BEGINNING)
    assert due(Pace(after(-0.1, 1)), False, 1)


def test_one_step_that_took_long_makes_no_sort_losing_and_no_stream_rest_for_long():
    mean = Mean()
    pace = Pace(mean)
    pace.settled(0.0, 20.0, 0.5)
    assert not mean.losing
    assert any(due(pace, True, PLENTY) for _ in range(10))


def test_one_stream_that_took_long_makes_no_sort_losing():
    mean = Mean()
    mean.ended(-40.0)
    assert not mean.losing
    for _ in range(4):
        mean.ended(-40.0)
    assert mean.losing


def test_what_was_won_long_ago_pays_for_no_losses_now():
    mean = Mean()
    for _ in range(100):
        mean.ended(50.0)
    streams = 0
    while not mean.losing:
        mean.ended(-1.0)
        streams += 1
    assert streams < 60


def test_a_losing_sort_is_tried_again_as_soon_as_a_stream_gains():
    mean = after(-0.1)
    mean.ended(0.5)
    assert not mean.losing
    mean.ended(-1.0)
    assert mean.losing


def test_the_more_was_lost_the_fewer_streams_are_tried():
    little, much = Mean(balance=1.1 * LOST), Mean(balance=5 * LOST)
    tried = [sum(mean.tries() for _ in range(SELDOM)) for mean in (little, much)]
    assert tried == [SELDOM // EARLY, -(-SELDOM // (5 * EARLY))]


def test_a_stream_that_is_tried_in_a_losing_sort_gets_a_fair_chance():
    mean = after(-0.1)
    pace = Pace(mean)
    assert pace.net == 0.0
    assert planned(pace, 40, 1.0, 0.1, 1.0) == 40


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


def test_calibrations_are_of_one_model_loaded_in_one_way(monkeypatch):
    keys = {
        calibration_key("a", "bf16"),
        calibration_key("a", "fp32"),
        calibration_key("b", "bf16"),
    }
    assert len(keys) == 3
    assert calibration_key("a", "bf16") in keys
    monkeypatch.setattr(calibration, "instruction_sets", lambda: ["portable"])
    assert calibration_key("a", "bf16") not in keys, "other kernels, other costs"


def stream_of(repository: str, temperature: float) -> StreamView:
    return StreamView(1, [1, 2], 2, repository, "python", temperature=temperature)


def test_sorts_are_told_apart_by_repository_language_and_temperature():
    usual = Usual()
    free = usual.of(stream_of("r", 1.2))
    free.follow(-0.5)
    assert usual.of(stream_of("r", 1.2)) is free
    assert usual.of(stream_of("r", 0.0)).net == 0.0
    assert usual.of(stream_of("s", 1.2)).net == 0.0


def test_sorts_of_streams_are_forgotten_in_time():
    usual = Usual()
    usual.of(stream_of("first", 0.0)).follow(-9.0)
    for number in range(SORTS):
        usual.of(stream_of(str(number), 0.0))
    assert usual.of(stream_of("first", 0.0)).net == 0.0


def test_what_a_step_may_be_said_to_have_lost_is_a_step_of_all_streams():
    alone, among_eight = Pace(Mean()), Pace(Mean())
    alone.settled(0.0, 5.0, 1.0)
    among_eight.settled(0.0, 5.0, 1.0, streams=8)
    assert among_eight.net < 4 * alone.net < 0.0


def test_the_more_of_a_step_is_rows_the_fewer_streams_are_tried_at_first():
    """They share the rest of it already, and save that only together: as many in a row are tried as
    may decode at once. Ones that win are followed by all."""
    stream = StreamView(1, [1, 2, 3], "r", "python")
    tries, rests = ((1, 0.0), (2, 0.1), (8, 0.05)), ((4, 0.3), (8, 0.5))
    for streams, crowding in tries + rests:
        mean = Usual().of(stream, streams, crowding)
        together = streams if streams >= 4 else 1
        tried = [mean.tries() for _ in range(2 * EARLY * together)]
        rounds = [sum(each) for each in zip(*[iter(tried)] * together, strict=True)]
        if (streams, crowding) in rests:
            assert rounds[: EARLY - 1] == [0] * (EARLY - 1)
            assert rounds[EARLY - 1] == together
        else:
            assert all(tried)
    usual = Usual()
    crowd = usual.of(stream, 8, 0.5)
    for _ in range(4):
        crowd.ended(3.0)
    assert all(crowd.tries() for _ in range(EARLY))
