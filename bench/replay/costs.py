"""Step costs to replay under."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass


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


AMX = linear("cpu-amx", 2.2, 0.035)
AVX512 = linear("cpu-avx512", 2.4, 0.30)
