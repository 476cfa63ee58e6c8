"""Step costs outside of steps: at a first start, and again in idle moments."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np

from atlasd.engine.clock import StepClock
from atlasd.engine.costs import ROWS, StepCosts
from atlasd.models.decoder import Decoder

ORDER = (1, 16, 4, 8, 2, 32, 64)
"""Most telling first, in case the budget ends."""

ROUNDS = 8

LOOK_MS = 20.0
"""A request that arrives during a look waits at most about this long. Where steps are slower than
that, hiccups are small beside them."""

LONG, LONG_ROWS = 2048, (1, 16, 4, 8)
"""KV tokens of the measurement that shows how costs grow with them, and its row counts: where a row
of weights is cheap, attention is what more rows cost."""


def measure_costs(
    decoder: Decoder,
    costs: StepCosts,
    budget_s: float,
    progress: Callable[[float], None] = lambda fraction: None,
    clock: StepClock | None = None,
) -> None:
    """Fill ``costs`` with measured steps. Writes over slot 0, so no stream may be there.

    The points are measured in turn, round after round, and the fastest time counts: whatever else
    runs on the machine then hits all of them alike, and adds as little as possible.
    """
    assert set(ORDER) == set(ROWS)
    long = min(LONG, decoder.slot_tokens - max(ROWS))
    points = [(rows, 0) for rows in ORDER if rows <= decoder.slot_tokens]
    if long > 0:
        points += [(rows, long) for rows in LONG_ROWS]
    clock = clock or StepClock()
    deadline = perf_counter() + budget_s
    step_ms(decoder, clock, 1, 0, 0)  # the first call pays for pages and buffers
    best: dict[tuple[int, int], float] = {}
    steps = points * ROUNDS
    for done, (rows, start) in enumerate(steps):
        if best and perf_counter() > deadline:
            break
        ms = step_ms(decoder, clock, rows, 0, start)
        best[rows, start] = min(ms, best.get((rows, start), ms))
        progress(done / len(steps))
    for (rows, start), ms in best.items():
        costs.measure(rows, start, ms)
    progress(1.0)


def step_ms(decoder: Decoder, clock: StepClock, rows: int, slot: int, start: int) -> float:
    """Milliseconds of one decoding step of ``rows`` rows at positions from ``start`` of a slot."""
    positions = np.arange(start, start + rows, dtype=np.int32)
    zeros = np.zeros(rows, dtype=np.int32)
    began = clock.now()
    decoder.forward(zeros, zeros + np.int32(slot), positions, np.arange(rows, dtype=np.int32))
    return clock.ms_since(began)


class Recheck:
    """Compares step costs again while the engine is idle, one short look at a time."""

    def __init__(self, decoder: Decoder, costs: StepCosts, clock: StepClock | None = None) -> None:
        self._decoder = decoder
        self._costs = costs
        self._clock = clock or StepClock()
        self._turn = 0

    def look(self, slot: int, start: int) -> None:
        """Two steps, one of them of one row, at positions of a slot that nobody reads."""
        rows = ORDER[1:][self._turn % (len(ORDER) - 1)]
        self._turn += 1
        expected = 2 * (self._costs.ms(rows, start) + self._costs.ms(1, start))
        if start + rows > self._decoder.slot_tokens or expected > LOOK_MS:
            return
        one = min(step_ms(self._decoder, self._clock, 1, slot, start) for _ in range(2))
        many = min(step_ms(self._decoder, self._clock, rows, slot, start) for _ in range(2))
        self._costs.compare(rows, start, many / one)
