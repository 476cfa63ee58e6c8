"""What a step takes beside the target's rows: the engine's own work, and drafting.

A step that brings more tokens saves steps, and with them this; of a small model it is a quarter of
a step. It is the same however long a draft is, so a lookahead that is cut by the rows alone is cut
too short.
"""

from __future__ import annotations

EVERY = 16
"""Of so many steps one is measured: reading the clock takes a microsecond."""

_FOLLOW = 1 / 16
_OUTLIER = 3.0
"""One measurement counts as at most this many times the mean."""


class Beside:
    """Running means in milliseconds; zero until something was measured."""

    def __init__(self) -> None:
        self.engine_ms = 0.0
        """Of a step, drafting left out."""
        self.draft_ms = 0.0
        """Drafting in a step that is drafted for."""

    @property
    def planned_ms(self) -> float:
        """Of a step that is drafted for."""
        return self.engine_ms + self.draft_ms

    def stepped(self, milliseconds: float) -> None:
        """The engine's own work in a step."""
        self.engine_ms = _followed(self.engine_ms, milliseconds)

    def drafted(self, milliseconds: float) -> None:
        """Planning a step, and learning from it."""
        self.draft_ms = _followed(self.draft_ms, milliseconds)


def _followed(mean: float, measured: float) -> float:
    measured = max(0.0, measured)
    if not mean:
        return measured
    return mean + _FOLLOW * (min(measured, _OUTLIER * mean) - mean)
