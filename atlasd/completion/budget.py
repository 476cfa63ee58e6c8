"""How long prompts may be: as long as one that is not cached at all is still read quickly."""

from __future__ import annotations

from atlasd.engine.protocol import StreamStats

START = 2048
FEWEST, MOST = 512, 4096
PATIENCE_MS = 1500.0
"""What reading a whole prompt may take."""
TELLING = 256
"""Prefills of fewer tokens say little about speed."""
AGREEING = 2
"""Measurements in a row that must call for another size: changing it costs a whole prefill."""


class Budget:
    """A number of tokens that follows the measured speed of prefill, in powers of two."""

    def __init__(self) -> None:
        self.tokens = START
        self._called_for: list[int] = []

    def observe(self, stats: StreamStats) -> None:
        """Learn from a request that was answered."""
        if stats.prefilled_tokens < TELLING or stats.prefill_ms <= 0:
            return
        affordable = stats.prefilled_tokens / stats.prefill_ms * PATIENCE_MS
        size = FEWEST
        while size * 2 <= min(affordable, MOST):
            size *= 2
        # Speed that is just enough today may not be tomorrow: grow only with room to spare.
        if self.tokens < size and affordable < 1.25 * size:
            size //= 2
        self._called_for = [*self._called_for, size][-AGREEING:]
        if len(self._called_for) == AGREEING and len(set(self._called_for)) == 1:
            self.tokens = size
