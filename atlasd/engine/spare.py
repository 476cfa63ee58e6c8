"""A slot nobody needs, lent to learning: the target reads texts there that it has not generated."""

from __future__ import annotations

import numpy as np
from atlasd_kernels import cpu

from atlasd.draft.drafter import Float32, Int32
from atlasd.engine.costs import StepCosts
from atlasd.engine.steps import Engine
from atlasd.learn.passages import TOP
from atlasd.models.decoder import kept_states

CALL_MS = 5.0
"""What one call may take. An arriving request waits for it."""

ROWS = (8, 16, 32, 64)
"""Rows of a call. Where not even the fewest fit, reading is too slow to be worth it."""


class SpareSlot:
    """Serves ``learn.reading.Target``. Slots are only borrowed: a stream takes one back simply by
    using it, and what was being read is then given up."""

    def __init__(self, engine: Engine, costs: StepCosts) -> None:
        self._engine = engine
        self._costs = costs
        self._slot = -1
        self._lent_at = -1
        self._native = cpu.available()[0]

    @property
    def rows(self) -> int:
        """Rows of a call of about five milliseconds; 0 where steps take longer than that."""
        if not self._native:
            return 0
        fitting = [
            rows for rows in ROWS if self._costs.ms(rows, 512) + rows * self._top_ms <= CALL_MS
        ]
        return fitting[-1] if fitting else 0

    @property
    def _top_ms(self) -> float:
        """Finding a row's top choices: a few nanoseconds a token."""
        return self._engine.decoder.vocab_size * 1e-6

    def begin(self) -> bool:
        slot = self._engine.slots.lend()
        if slot is None:
            return False
        self._slot, self._lent_at = slot, self._engine.slots.clock
        return True

    def read(self, tokens: Int32, position: int) -> tuple[Int32, Float32, Float32 | None] | None:
        if self._engine.slots.clock != self._lent_at:
            return None
        rows = np.arange(len(tokens), dtype=np.int32)
        logits = self._engine.decoder.forward(
            np.ascontiguousarray(tokens, np.int32),
            np.full(len(tokens), self._slot, np.int32),
            rows + np.int32(position),
            rows,
        )
        top, logprobs, _ = cpu.top_k(logits, TOP)
        states = kept_states(self._engine.decoder)
        return top, logprobs, None if states is None else states.copy()
