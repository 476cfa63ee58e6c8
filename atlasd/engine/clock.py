"""Time as planning should see it: what a step takes when it has the processor.

On a busy machine a step of three milliseconds is interrupted nearly every time, one of one
millisecond seldom. Measured by the wall, rows would look far more expensive than they are, and
drafting would stop paying just when tokens are slow.
"""

from __future__ import annotations

from time import perf_counter, process_time, thread_time

Moment = tuple[float, float]


class StepClock:
    """Measures forward passes. ``on_cpu`` False (the work is done elsewhere): by the wall."""

    def __init__(self, on_cpu: bool = True) -> None:
        self.on_cpu = on_cpu

    def now(self) -> Moment:
        return perf_counter(), process_time() if self.on_cpu else 0.0

    def ms_since(self, began: Moment) -> float:
        """Milliseconds of the pass since then: processor time where one thread does the work (or
        the threads take turns), wall time where several work at once."""
        wall = perf_counter() - began[0]
        if not self.on_cpu:
            return wall * 1e3
        return min(wall, process_time() - began[1]) * 1e3

    def own(self) -> float:
        """Seconds on a clock for work of the calling thread alone: planning and drafting."""
        return thread_time() if self.on_cpu else perf_counter()
