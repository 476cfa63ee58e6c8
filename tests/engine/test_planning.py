"""What the step loop asks of drafting."""

from __future__ import annotations

from collections import Counter

import pytest

from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.judged import COSTS_STAY
from atlasd.engine.outcomes import Outcome, Step, gains_ms
from atlasd.engine.pace import EARLY, Pace
from atlasd.engine.planning import Planning
from atlasd.engine.planning_ahead import MAX_ROWS
from atlasd.engine.steps import Engine
from tests.engine.hash_decoder import HashDecoder
from tests.engine.oracle import OracleController


class Strict(OracleController):
    """As the real one, has no prices for fewer rows than none."""

    def plan(self, streams, room, limits, others):
        assert 0 <= room <= 64
        return super().plan(streams, room, limits, others)


def test_many_short_prompts_at_once_leave_no_room_and_harm_no_drafter(caplog):
    """Each joins a step with all its rows, and together they are more than a step drafts for."""
    outputs = Outputs()
    planning = Planning(Strict({}, 50, 0))
    engine = Engine(HashDecoder(slots=16, chunk=1), outputs.take, planning=planning)
    for number in range(1, 17):
        prompt = [(number * step) % 50 for step in range(1, 15)]
        engine.submit(request(number, prompt, max_tokens=4))
    run(engine)
    assert len(outputs) == 16
    assert planning.on
    assert caplog.text == ""


class Slow:
    """Step costs next to which planning costs nothing; keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def ms(self, rows: int, kv_tokens: int) -> float:
        self.asked.append((rows, kv_tokens))
        return 1000.0


class Quick:
    """Step costs next to which planning costs a lot."""

    def ms(self, rows: int, kv_tokens: int) -> float:
        return 0.01


def test_step_costs_are_asked_for_again_since_they_are_being_measured():
    decoder, plain, outputs = HashDecoder(slots=1, chunk=8), Outputs(), Outputs()
    first = Engine(decoder, plain.take)
    first.submit(request(0, [1, 2, 3], max_tokens=60))
    run(first)
    streams = COSTS_STAY // 10
    truth = dict.fromkeys(range(1, streams), plain[0].tokens)
    costs = Slow()
    oracle = OracleController(truth, decoder.vocab_size, 0, longest=3, right=1.0)
    engine = Engine(decoder, outputs.take, planning=Planning(oracle, costs))
    for number in truth:
        engine.submit(request(number, [1, 2, 3], max_tokens=60))
        run(engine)
    assert all(outputs[number].tokens == plain[0].tokens for number in truth)
    asked = Counter((rows, kv_tokens >> 9) for rows, kv_tokens in costs.asked)
    assert max(asked.values()) in range(2, 12)


def test_streams_that_take_no_draft_leave_the_others_less_room():
    decoder, plain = HashDecoder(slots=16, chunk=8), Outputs()
    first = Engine(decoder, plain.take)
    first.submit(request(0, [1, 2, 3], max_tokens=70))
    run(first)
    truth = {1: plain[0].tokens}
    decoder.calls.clear()
    for seed in range(10):  # of how long the drafts are
        outputs = Outputs()
        oracle = OracleController(truth, decoder.vocab_size, seed, longest=70, right=1.0)
        engine = Engine(decoder, outputs.take, planning=Planning(oracle))
        for number in range(2, 17):
            engine.submit(request(number, [number, 2, 3], max_tokens=70, drafting=False))
        engine.submit(request(1, [1, 2, 3], max_tokens=70))  # it begins when all others decode
        run(engine)
        assert outputs[1].tokens == plain[0].tokens
    rows = [count for kind, count in decoder.calls if kind == "decode"]
    assert MAX_ROWS - 5 < max(rows) <= MAX_ROWS


def test_where_drafting_loses_few_streams_are_taken_up_however_long_they_are():
    decoder, outputs = HashDecoder(slots=1, chunk=8), Outputs()
    oracle = OracleController({}, decoder.vocab_size, 0)  # it has nothing to say
    engine = Engine(decoder, outputs.take, planning=Planning(oracle, Quick()))
    begun = []
    for length, numbers in ((200, range(8)), (12, range(8, 24)), (90, range(24, 40))):
        oracle.begun.clear()
        for number in numbers:
            engine.submit(request(number, [number, 2, 3], max_tokens=length))
            run(engine)
        begun.append(len(oracle.begun))
    assert begun[0] >= 4, "one stream alone says little"
    assert all(1 <= count <= 16 // EARLY for count in begun[1:]), begun


class Stepped:
    """Rows cost what they cost alone, however many there are."""

    def ms(self, rows: int, kv_tokens: int) -> float:
        return 100.0 * rows


def test_a_token_saves_its_share_of_a_step_that_others_need_too():
    """Of eight streams whose rows cost as much together as alone a draft that is always right saves
    nothing: each is tried, found wanting, and rests."""
    decoder, plain = HashDecoder(slots=16, chunk=8), Outputs()
    first = Engine(decoder, plain.take)
    for number in range(8):
        first.submit(request(number, [number, 2, 3], max_tokens=80))
    run(first)
    truth = {number: plain[number].tokens for number in range(8)}
    oracle = OracleController(truth, decoder.vocab_size, 0, longest=6, right=0.8)
    outputs = Outputs()
    planning = Planning(oracle, Stepped())
    engine = Engine(decoder, outputs.take, planning=planning)
    for number in range(8):
        engine.submit(request(number, [number, 2, 3], max_tokens=80))
    run(engine)
    assert all(outputs[number].tokens == truth[number] for number in truth)
    tried = [sum(one is not None for one in planning._records[number]) for number in truth]
    assert sum(tried) < 8 * 10


def test_streams_that_all_rest_are_not_looked_at_and_yet_on_record(monkeypatch):
    looked = []
    resting = Pace.resting

    def noted(self, begun, left):
        looked.append(left)
        return resting(self, begun, left)

    monkeypatch.setattr(Pace, "resting", noted)
    decoder, outputs = HashDecoder(slots=16, chunk=8), Outputs()
    planning = Planning(OracleController({}, decoder.vocab_size, 0), Quick())
    engine = Engine(decoder, outputs.take, planning=planning)
    for number in range(12):
        engine.submit(request(number, [number, 2, 3], max_tokens=40 + 3 * number))
    run(engine)
    steps = [outputs[number].stats.steps for number in range(12)]
    assert [len(planning._records[number]) for number in range(12)] == steps
    assert len(looked) < sum(steps) / 2


class Shared:
    """A step costs nine milliseconds and one for each row."""

    def ms(self, rows: int, kv_tokens: int) -> float:
        return 9.0 + rows

    def bucket(self, rows: int) -> int:
        return rows


@pytest.mark.parametrize(("drafting", "saved_ms"), [(1, 1 + 9 / 9), (3, 1 + 9 / 3)])
def test_whole_steps_are_saved_by_streams_that_all_get_ahead(drafting, saved_ms):
    """Of three streams that decode together one alone with two right tokens saves two rows
    of later steps, and of what a step costs in any case a third of its third."""
    outcome = Outcome(2, 2, 0.0, 2 * drafting, drafting)
    (gained,) = gains_ms(Step(3, 3, 100), 0.0, [outcome], Shared().ms)
    assert gained == pytest.approx(2 * saved_ms - 2)


def test_streams_that_rest_are_among_those_that_a_step_is_planned_for():
    asked = []

    class Noted(OracleController):
        def plan(self, streams, room, limits, others):
            asked.append((len(streams), room, others))
            return super().plan(streams, room, limits, others)

    planning = Planning(Noted({}, 50, 0))
    outputs = Outputs()
    engine = Engine(HashDecoder(slots=4, chunk=8), outputs.take, planning=planning)
    for number in range(3):
        engine.submit(request(number, [number, 2, 3], max_tokens=20, drafting=number == 0))
    run(engine)
    streams, room, others = asked[-1]
    assert (streams, room, others.streams) == (1, 61, 2)
    assert others.kv_tokens > 6
