"""Step costs to replay under."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TableCosts:
    """Milliseconds of a step by row bucket; ``per_kv`` milliseconds per cached token."""

    name: str
    buckets: tuple[int, ...]
    milliseconds: tuple[float, ...]
    per_kv: float = 0.0

    def bucket(self, rows: int) -> int:
        """The row count ``rows`` is padded to."""
        return self.buckets[min(bisect_left(self.buckets, rows), len(self.buckets) - 1)]

    def ms(self, rows: int, kv_tokens: int) -> float:
        """Milliseconds of a step; beyond the last bucket in proportion."""
        at = bisect_left(self.buckets, rows)
        if at < len(self.buckets):
            return self.milliseconds[at] + self.per_kv * kv_tokens
        return self.milliseconds[-1] * rows / self.buckets[-1] + self.per_kv * kv_tokens


def scaled(name: str, ms: float, buckets: tuple[int, ...], ratios: tuple[float, ...]) -> TableCosts:
    """A table from ratios to one row's time."""
    return TableCosts(name, buckets, tuple(ms * ratio for ratio in ratios))


GPU = scaled("gpu", 12.0, (1, 2, 4, 8, 16, 32, 64), (1.0, 1.01, 1.02, 1.03, 1.05, 1.10, 1.25))
"""The profile of the issue: verifying 16, 32, 64 rows costs 1.05, 1.10, 1.25 of one."""


def linear(name: str, first: float, per_row: float, rows: int = 64) -> TableCosts:
    """Every row count is a bucket of its own: our CPU kernels."""
    return TableCosts(
        name, tuple(range(1, rows + 1)), tuple(first + per_row * n for n in range(rows))
    )


def interpolated(name: str, rows: tuple[int, ...], milliseconds: tuple[float, ...]) -> TableCosts:
    """Every row count a bucket, measured at some."""
    every = tuple(range(1, rows[-1] + 1))
    return TableCosts(name, every, tuple(float(v) for v in np.interp(every, rows, milliseconds)))


AMX = linear("cpu-amx", 2.2, 0.035)
CPU = interpolated("cpu", (1, 4, 8, 16, 64), (2.3, 2.7, 3.25, 5.8, 21.0))
"""The bundled model's size on two cores with AVX-512 and no AMX: matmuls alone 1.76, 2.15,
2.70 and 5.25 ms at 1, 4, 8 and 16 rows, and 0.55 ms for the rest."""

COSTS = {"gpu": GPU, "cpu": CPU, "cpu-amx": AMX}
