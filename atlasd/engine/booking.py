"""Counting steps: what they took goes to the measured costs and the counters, a few at a time."""

from __future__ import annotations

from typing import NamedTuple

from atlasd.engine.costs import StepCosts
from atlasd.engine.counters import Counters

BOOKED_TOGETHER = 8
"""Entries that are counted at a time: one by one each would have to fetch what counting needs,
which the step between has pushed out of the caches."""


class _Entry(NamedTuple):
    rows: int
    kv_tokens: int
    step_ms: float
    seconds: float
    steps: int


class Booking:
    """Steps that are not counted yet."""

    def __init__(self, costs: StepCosts, counters: Counters) -> None:
        self._costs, self._counters = costs, counters
        self._entries: list[_Entry] = []

    def note(
        self, rows: int, kv_tokens: int, step_ms: float, seconds: float, steps: int = 1
    ) -> None:
        """A step took ``step_ms``, or about as much each of several with as many rows; ``seconds``
        by the wall, all of them."""
        self._entries.append(_Entry(rows, kv_tokens, step_ms, seconds, steps))

    def now_and_then(self) -> None:
        """Count them if they are enough."""
        if len(self._entries) >= BOOKED_TOGETHER:
            self.count()

    def count(self) -> None:
        """Count them."""
        add = self._counters.add
        for rows, kv_tokens, step_ms, seconds, steps in self._entries:
            self._costs.observe(rows, kv_tokens, step_ms, steps)
            add("rows", rows * steps)
            add("forward_seconds", seconds)
            add("steps", steps)
        self._entries.clear()
