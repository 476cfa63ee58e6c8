"""Step costs at start-up: a few steps over empty slots, within a time budget."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import numpy as np

from atlasd.engine.costs import ROWS, StepCosts
from atlasd.models.decoder import Decoder

ORDER = (1, 16, 4, 8, 2, 32, 64)
"""Most telling first, in case the budget ends."""

REPEATS = 3

LONG = 2048
"""KV tokens of the measurement that shows how costs grow with them."""


def measure_costs(
    decoder: Decoder,
    costs: StepCosts,
    budget_s: float,
    progress: Callable[[float], None] = lambda fraction: None,
) -> None:
    """Fill ``costs`` with measured steps. Writes over slot 0, so no stream may be there."""
    assert set(ORDER) == set(ROWS)
    long = min(LONG, decoder.slot_tokens - max(ROWS))
    points = [(rows, 0) for rows in ORDER if rows <= decoder.slot_tokens]
    if long > 0:
        points += [(1, long), (16, long)]
    deadline = perf_counter() + budget_s
    step_ms(decoder, 1, 0)  # the first call pays for pages and buffers
    for done, (rows, start) in enumerate(points):
        times = [step_ms(decoder, rows, start)]
        while len(times) < REPEATS and perf_counter() < deadline:
            times.append(step_ms(decoder, rows, start))
        costs.measure(rows, start, min(times))
        progress((done + 1) / len(points))
        if perf_counter() > deadline:
            return


def step_ms(decoder: Decoder, rows: int, start: int) -> float:
    """Milliseconds of one decoding step of ``rows`` rows at positions from ``start`` in slot 0."""
    positions = np.arange(start, start + rows, dtype=np.int32)
    zeros = np.zeros(rows, dtype=np.int32)
    started = perf_counter()
    decoder.forward(zeros, zeros, positions, np.arange(rows, dtype=np.int32))
    return (perf_counter() - started) * 1e3
