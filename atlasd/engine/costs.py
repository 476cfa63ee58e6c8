"""What a decoding step costs here: milliseconds by rows and KV tokens, measured all the time."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

import msgspec

ROWS = (1, 2, 4, 8, 16, 32, 64)
"""Row counts that are measured; between them costs are interpolated."""

KV_TOKENS = (0, 512, 2048, 8192, 32768, 131072)
"""KV tokens that are measured, all streams together; more are taken to cost the same."""

SLOW, FAST = 0.02, 0.1
"""How quickly the table's shape and the machine's present speed follow what is observed."""

MEASURED = 50
"""Observations that a measurement of its own is worth."""

OUTLIER = 1.5
"""An observation counts as at most this factor off, so that a hiccup cannot spoil the table."""

REBUILD_EVERY = 128
"""Observations after which the monotone table is made anew, which takes a quarter of a small step;
the speed follows at once."""


class _Saved(msgspec.Struct):
    rows: list[int]
    kv_tokens: list[int]
    cells: list[list[float]]
    seen: list[list[int]]


class StepCosts:
    """Milliseconds of a step. ``bucket`` is the decoder's.

    The machine's present speed is a factor of its own: when something else takes the processor,
    all costs rise together and what is planned stays the same.
    """

    def __init__(self, bucket: Callable[[int], int]) -> None:
        self._bucket = bucket
        self._cells = [[0.0] * len(KV_TOKENS) for _ in ROWS]
        self._seen = [[0] * len(KV_TOKENS) for _ in ROWS]
        self._speed = 1.0
        self._observed = 0
        self._table: list[list[float]] = []
        self._stale = True

    def bucket(self, rows: int) -> int:
        """The row count ``rows`` is padded to: rows up to there are free."""
        return self._bucket(rows)

    def ms(self, rows: int, kv_tokens: int) -> float:
        """Milliseconds of a step of ``rows`` rows over ``kv_tokens`` cached tokens; grows with
        both. 1 ms while nothing has been measured."""
        if self._stale:
            self._rebuild()
        padded = self._bucket(rows)
        at = min(bisect_left(ROWS, padded), len(ROWS) - 1)
        cost = self._along_kv(at, kv_tokens)
        if at and padded < ROWS[at]:
            below = self._along_kv(at - 1, kv_tokens)
            cost = below + (cost - below) * (padded - ROWS[at - 1]) / (ROWS[at] - ROWS[at - 1])
        elif padded > ROWS[at]:
            cost *= padded / ROWS[at]
        return cost * self._speed

    def observe(self, rows: int, kv_tokens: int, ms: float, count: int = 1) -> None:
        """A step took this long, or ``count`` of them did, one after the other."""
        row, kv = _nearest(ROWS, self._bucket(rows)), _nearest(KV_TOKENS, kv_tokens)
        seen = self._seen[row][kv]
        if not seen:
            # What its neighbours say, not what came first, which may have been a hiccup.
            expected = self.ms(ROWS[row], KV_TOKENS[kv]) if self._known() else ms
            self._cells[row][kv] = expected / self._speed
            self._stale = True
        ratio = min(max(ms / max(self.ms(rows, kv_tokens), 1e-9), 1 / OUTLIER), OUTLIER)
        self._speed *= 1 + _followed(FAST, count) * (ratio - 1)
        self._cells[row][kv] *= 1 + _followed(max(SLOW, 1 / (3 + seen)), count) * (ratio - 1)
        self._seen[row][kv] += count
        self._observed += count
        if self._observed >= REBUILD_EVERY:
            self._observed, self._stale = 0, True

    def measure(self, rows: int, kv_tokens: int, ms: float) -> None:
        """A step was run only to be measured: take its time as it is."""
        row, kv = _nearest(ROWS, self._bucket(rows)), _nearest(KV_TOKENS, kv_tokens)
        self._cells[row][kv] = ms / self._speed
        self._seen[row][kv] += MEASURED
        self._stale = True

    def compare(self, rows: int, kv_tokens: int, ratio: float) -> None:
        """A step of so many rows was seen to take ``ratio`` times as long as one of one row, right
        beside it. Corrects what planning never tries, because it was measured in a bad moment."""
        row, kv = _nearest(ROWS, self._bucket(rows)), _nearest(KV_TOKENS, kv_tokens)
        if self._seen[row][kv]:
            expected = self.ms(rows, kv_tokens) / self.ms(1, kv_tokens)
            off = min(max(ratio / expected, 1 / OUTLIER), OUTLIER)
            self._cells[row][kv] *= 1 + (off - 1) / 2
            self._stale = True

    def by_bucket(self) -> dict[str, float]:
        """Milliseconds by rows at the smallest KV, for people."""
        return {str(rows): round(self.ms(rows, 0), 3) for rows in ROWS} if self._known() else {}

    def snapshot(self) -> bytes:
        """All that was measured."""
        cells = [[cell * self._speed for cell in row] for row in self._cells]
        return msgspec.msgpack.encode(_Saved(list(ROWS), list(KV_TOKENS), cells, self._seen))

    def restore(self, payload: bytes) -> bool:
        """Take over what ``snapshot`` gave; one that does not fit is ignored (False)."""
        try:
            saved = msgspec.msgpack.decode(payload, type=_Saved)
        except msgspec.DecodeError:
            return False
        if saved.rows != list(ROWS) or saved.kv_tokens != list(KV_TOKENS):
            return False
        self._cells, self._seen, self._stale = saved.cells, saved.seen, True
        return True

    def _known(self) -> bool:
        return any(count for row in self._seen for count in row)

    def _along_kv(self, row: int, kv_tokens: int) -> float:
        cells = self._table[row]
        at = min(max(bisect_left(KV_TOKENS, kv_tokens), 1), len(KV_TOKENS) - 1)
        low, high = KV_TOKENS[at - 1], KV_TOKENS[at]
        share = (min(kv_tokens, high) - low) / (high - low)
        return cells[at - 1] + (cells[at] - cells[at - 1]) * share

    def _rebuild(self) -> None:
        """The table the costs are read from: gaps filled from measured neighbours, monotone."""
        table = _fill_along_rows(_fill_along_kv(self._cells, self._seen))
        # Hiccups only ever add time, so where two cells contradict each other the larger is wrong.
        for row in reversed(range(len(ROWS))):
            for kv in reversed(range(len(KV_TOKENS))):
                below = table[row + 1][kv] if row + 1 < len(ROWS) else table[row][kv]
                right = table[row][kv + 1] if kv + 1 < len(KV_TOKENS) else table[row][kv]
                table[row][kv] = min(table[row][kv], below, right)
        self._table, self._stale = table, False


def _fill_along_kv(cells: list[list[float]], seen: list[list[int]]) -> list[list[float] | None]:
    """Per row count the costs at every KV size, or None where nothing was measured. Where a size
    is missing, the growth measured at another row count stands in."""
    slope = _slope(cells, seen)
    filled: list[list[float] | None] = []
    for row_cells, row_seen in zip(cells, seen, strict=True):
        known = [kv for kv, count in enumerate(row_seen) if count]
        if not known:
            filled.append(None)
            continue
        row = []
        for kv, size in enumerate(KV_TOKENS):
            near = min(known, key=lambda other: (abs(other - kv), other))
            row.append(
                max(row_cells[near] + slope * (size - KV_TOKENS[near]), 0.05 * row_cells[near])
            )
        filled.append(row)
    return filled


def _fill_along_rows(measured: list[list[float] | None]) -> list[list[float]]:
    """Row counts between measured ones are interpolated. Above the largest, costs are taken to
    grow with the rows: hoping for less could make drafting slower than plain decoding."""
    known = [(row, costs) for row, costs in enumerate(measured) if costs is not None]
    if not known:
        return [[1.0] * len(KV_TOKENS) for _ in ROWS]
    table: list[list[float]] = []
    for row, size in enumerate(ROWS):
        below = [item for item in known if item[0] <= row]
        above = [item for item in known if item[0] >= row]
        low_row, low = (below or above)[-1 if below else 0]
        if not below:
            factor, high = 0.0, low
        elif not above:
            factor, high = size / ROWS[low_row] - 1, [2 * cost for cost in low]
        else:
            high_row, high = above[0]
            span = ROWS[high_row] - ROWS[low_row]
            factor = (size - ROWS[low_row]) / span if span else 0.0
        table.append([a + (b - a) * factor for a, b in zip(low, high, strict=True)])
    return table


def _slope(cells: list[list[float]], seen: list[list[int]]) -> float:
    """Milliseconds per KV token, from the row count with the widest measured span."""
    best, widest = 0.0, 0
    for row_cells, row_seen in zip(cells, seen, strict=True):
        known = [kv for kv, count in enumerate(row_seen) if count]
        if len(known) > 1:
            span = KV_TOKENS[known[-1]] - KV_TOKENS[known[0]]
            if span > widest:
                best = max((row_cells[known[-1]] - row_cells[known[0]]) / span, 0.0)
                widest = span
    return best


def _followed(rate: float, count: int) -> float:
    """How far ``count`` steps at this rate go."""
    return rate if count == 1 else 1 - (1 - rate) ** count


def _nearest(points: tuple[int, ...], value: int) -> int:
    at = bisect_left(points, value)
    if at == len(points):
        return at - 1
    if at and value - points[at - 1] < points[at] - value:
        return at - 1
    return at
