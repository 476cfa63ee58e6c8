"""What a step takes beside the target's rows is measured, and counts where drafts are cut."""

from __future__ import annotations

import pytest

from atlasd.draft.cut import CostTable, cut
from atlasd.engine.beside import Beside
from atlasd.engine.clock import StepClock
from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Tokens
from atlasd.engine.steps import Engine
from tests.engine.hash_decoder import HashDecoder
from tests.engine.oracle import OracleController

FORWARD_MS, PLANNING_MS, TAKING_UP_MS, TELLING_MS = 4.0, 2.0, 20.0, 0.25


class Scripted(StepClock):
    """Only what is scripted takes time."""

    def __init__(self) -> None:
        super().__init__(on_cpu=False)
        self.passed_ms = 0.0

    def now(self):
        return self.own(), 0.0

    def ms_since(self, began):
        return self.passed_ms - began[0] * 1e3

    def own(self) -> float:
        return self.passed_ms / 1e3


class Linear:
    """A row more costs a fifth of a step."""

    def __init__(self, plain_ms: float = 1.0) -> None:
        self.plain_ms = plain_ms

    def ms(self, rows: int, kv_tokens: int) -> float:
        return self.plain_ms * (0.8 + 0.2 * rows)

    def bucket(self, rows: int) -> int:
        return rows


class SlowDecoder(HashDecoder):
    clock: Scripted

    def forward(self, *rows, **kind):
        self.clock.passed_ms += FORWARD_MS
        return super().forward(*rows, **kind)


class SlowController(OracleController):
    clock: Scripted
    beside_ms = 0.0

    def take_beside(self, milliseconds):
        self.beside_ms = milliseconds

    def begin(self, stream):
        self.clock.passed_ms += TAKING_UP_MS
        super().begin(stream)

    def plan(self, *asked):
        self.clock.passed_ms += PLANNING_MS
        return super().plan(*asked)


def test_the_more_a_step_takes_beside_its_rows_the_longer_is_the_lookahead() -> None:
    reach = [0.7**n for n in range(1, 16)]
    taken = []
    for beside_ms in (0.0, 0.3, 1.0, 10.0):
        costs = CostTable(Linear())
        costs.beside_ms = beside_ms
        price = costs.for_step(1, 15, 100)
        assert price.milliseconds[0] == 1.0 + beside_ms
        taken.append(cut([reach], price.milliseconds, 15)[0][0])
        # no other lookahead brings more tokens in all the time that passes
        rates = [(1 + sum(reach[:n])) / (beside_ms + 1.0 + 0.2 * n) for n in range(16)]
        assert taken[-1] == rates.index(max(rates))
    assert taken == sorted(taken)
    assert taken[0] < taken[-1]


def test_forward_passes_drafting_and_taking_a_stream_up_are_left_out() -> None:
    """What is left is what it takes to tell of a step's tokens; the controller hears of it."""
    plain, outputs, clock = Outputs(), Outputs(), Scripted()
    decoder = SlowDecoder(slots=1, chunk=8)
    decoder.clock = clock
    first = Engine(decoder, plain.take)
    first.submit(request(0, [1, 2, 3], max_tokens=12))
    run(first)
    truth = dict.fromkeys(range(1, 31), plain[0].tokens)
    controller = SlowController(truth, decoder.vocab_size, 0, longest=3, right=1.0)
    controller.clock = clock

    def tell(message):
        if isinstance(message, Tokens):
            clock.passed_ms += TELLING_MS
        outputs.take(message)

    planning = Planning(controller, Linear(100.0), clock)  # type: ignore[arg-type]
    engine = Engine(decoder, tell, planning=planning, clock=clock)
    for number in truth:
        engine.submit(request(number, [1, 2, 3], max_tokens=12))
        run(engine)
    assert planning.spent_ms > PLANNING_MS * len(truth)
    assert planning.once_ms == pytest.approx(TAKING_UP_MS * len(truth))
    assert planning.beside.engine_ms == pytest.approx(TELLING_MS)
    assert controller.beside_ms == pytest.approx(TELLING_MS)


@pytest.mark.parametrize("engine_ms", [0.0, 30.0])
def test_a_step_that_is_saved_saves_the_engines_work_as_well(
    engine_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted_in: list[int] = []
    clock, plain, outputs = Scripted(), Outputs(), Outputs()
    decoder = HashDecoder(slots=1, chunk=8)
    first = Engine(decoder, plain.take)
    first.submit(request(0, [1, 2, 3], max_tokens=12))
    run(first)
    controller = OracleController({1: plain[0].tokens}, decoder.vocab_size, 0, longest=3, right=1.0)
    costs = Linear(100.0)
    planning = Planning(controller, costs, clock)  # type: ignore[arg-type]
    planning.beside.engine_ms = engine_ms
    monkeypatch.setattr(planning.beside, "stepped", lambda milliseconds: None)
    settle = planning.settle

    def settled(part, accepted, verified, logits, step_ms):
        pace = planning._drafted[part.stream.number].pace
        before = pace._saved
        settle(part, accepted, verified, logits, step_ms)
        if part.draft.tokens:
            expected = 100.0 + accepted * (100.0 + engine_ms) - costs.ms(part.rows, 0)
            accepted_in.append(accepted)
            assert pace._saved - before == pytest.approx(expected / 100.0)

    monkeypatch.setattr(planning, "settle", settled)
    engine = Engine(decoder, outputs.take, planning=planning, clock=clock)
    engine.submit(request(1, [1, 2, 3], max_tokens=12))
    run(engine)
    assert any(accepted_in)


def test_one_interruption_is_not_taken_for_the_mean() -> None:
    beside = Beside()
    for milliseconds in [1.0] * 20 + [500.0] + [1.0] * 20:
        beside.stepped(milliseconds)
    assert 1.0 <= beside.engine_ms < 1.2
    beside.stepped(-1.0)  # clocks differ by a little
    assert beside.engine_ms > 0.9
