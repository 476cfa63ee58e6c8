"""What a step takes beside the target's rows and drafting: the engine's own work.

A step that brings more tokens saves steps, and with them this; of a small model it is a tenth of a
step. It is the same however long a draft is, so a lookahead that is cut by the rows alone is cut
too short. With the time of drafting in it as well, short requests were slower.
"""

from __future__ import annotations

EVERY = 16
"""Of so many steps one is measured: reading the clock takes a microsecond."""

_FOLLOW = 1 / 16
_OUTLIER = 3.0
"""One measurement counts as at most this many times the mean."""


class Beside:
    """A running mean."""

    def __init__(self) -> None:
        self.engine_ms = 0.0
        """Of a step, in milliseconds; zero until one was measured."""

    def stepped(self, milliseconds: float) -> None:
        """A step took this beside its rows and drafting."""
        measured, mean = max(0.0, milliseconds), self.engine_ms
        if mean:
            measured = mean + _FOLLOW * (min(measured, _OUTLIER * mean) - mean)
        self.engine_ms = measured
