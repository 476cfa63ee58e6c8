"""What a step takes beside the target's rows is measured, and counts where drafts are cut."""

from __future__ import annotations

from time import sleep

from atlasd.draft.cut import CostTable, cut
from atlasd.engine.beside import Beside
from atlasd.engine.clock import StepClock
from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.planning import Planning
from atlasd.engine.steps import Engine
from tests.engine.hash_decoder import HashDecoder
from tests.engine.oracle import OracleController

FORWARD_S, PLANNING_S, TAKING_UP_S = 0.004, 0.002, 0.02


class Linear:
    """A row more costs a fifth of a step."""

    def __init__(self, plain_ms: float = 1.0) -> None:
        self.plain_ms = plain_ms

    def ms(self, rows: int, kv_tokens: int) -> float:
        return self.plain_ms * (0.8 + 0.2 * rows)

    def bucket(self, rows: int) -> int:
        return rows


class SlowDecoder(HashDecoder):
    def forward(self, *rows, **kind):
        sleep(FORWARD_S)
        return super().forward(*rows, **kind)


class SlowController(OracleController):
    def begin(self, stream):
        sleep(TAKING_UP_S)
        super().begin(stream)

    def plan(self, streams, room, limits=None):
        sleep(PLANNING_S)
        return super().plan(streams, room, limits)


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
    plain, outputs, clock = Outputs(), Outputs(), StepClock(on_cpu=False)
    decoder = SlowDecoder(slots=1, chunk=8)
    first = Engine(decoder, plain.take)
    first.submit(request(0, [1, 2, 3], max_tokens=12))
    run(first)
    truth = dict.fromkeys(range(1, 31), plain[0].tokens)
    controller = SlowController(truth, decoder.vocab_size, 0, longest=3, right=1.0)
    planning = Planning(controller, Linear(100.0), clock)  # type: ignore[arg-type]
    engine = Engine(decoder, outputs.take, planning=planning, clock=clock)
    for number in truth:
        engine.submit(request(number, [1, 2, 3], max_tokens=12))
        run(engine)
    assert planning.spent_ms > 1e3 * PLANNING_S * len(truth)
    assert planning.once_ms > 1e3 * TAKING_UP_S * len(truth)
    assert 0.0 < planning.beside.engine_ms < 1e3 * PLANNING_S


def test_one_interruption_is_not_taken_for_the_mean() -> None:
    beside = Beside()
    for milliseconds in [1.0] * 20 + [500.0] + [1.0] * 20:
        beside.stepped(milliseconds)
    assert 1.0 <= beside.engine_ms < 1.2
    beside.stepped(-1.0)  # clocks differ by a little
    assert beside.engine_ms > 0.9
