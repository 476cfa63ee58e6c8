"""Where drafts are cut: the rows of all streams that raise expected tokens per millisecond."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Costs(Protocol):
    """What a step costs on this machine with this model (``engine.costs.StepCosts``)."""

    def ms(self, rows: int, kv_tokens: int) -> float:
        """Milliseconds of a step of ``rows`` rows over ``kv_tokens`` cached tokens."""
        ...

    def bucket(self, rows: int) -> int:
        """The row count ``rows`` is padded to: rows up to there are free."""
        ...


class Others(NamedTuple):
    """Streams that take a step too and are not drafted for: their rows are paid for and their
    tokens count."""

    streams: int = 0
    kv_tokens: int = 0


NO_OTHERS = Others()

_KV_STEP = 1024
_REFRESH = 256
_LOOKUP_MS = 0.03


@dataclass(slots=True, eq=False)
class Price:
    """What the steps of so many streams cost."""

    milliseconds: array[float]
    """Of a step with ``streams`` + n rows, for n = 0 .. room."""
    least_reach: float
    """Reach below which no row can pay."""
    worth_asking: float
    """Reach below which one more look-up costs more than it can gain."""
    address: int = field(init=False)
    """Where the milliseconds lie, for the native planner."""

    def __post_init__(self) -> None:
        self.address = self.milliseconds.buffer_info()[0]


class CostTable:
    """Step costs by row count, refreshed now and then while they are being measured."""

    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self.beside_ms = 0.0
        """What a step takes beside its rows, however many these are."""
        self._tables: dict[tuple[int, int], Price] = {}
        self._age = 0

    def used(self, steps: int) -> None:
        """So many steps more were planned by the prices given last."""
        self._age += steps

    def for_step(self, streams: int, room: int, kv_tokens: int) -> Price:
        """What steps of ``streams`` streams with up to ``room`` drafted rows cost."""
        self._age += 1
        if self._age > _REFRESH:
            self._tables.clear()
            self._age = 0
        key = (streams, kv_tokens // _KV_STEP)
        known = self._tables.get(key)
        if known is None or len(known.milliseconds) <= room:
            known = self._tables[key] = self._measured(key, room)
        return known

    def _measured(self, key: tuple[int, int], room: int) -> Price:
        streams, kv_tokens = key[0], key[1] * _KV_STEP + _KV_STEP // 2
        beside_ms = self.beside_ms
        table = array(
            "d", [beside_ms + self._costs.ms(streams + n, kv_tokens) for n in range(room + 1)]
        )
        plain = table[0]
        slope = min(
            ((table[n] - plain) / n for n in (8, 16, 32, 63) if n < len(table)), default=0.0
        )
        # Streams compete for the rows of a step: what is unlikely will not be among them.
        crowded = 0.01 * streams if streams > 1 else 0.002
        least = max(crowded, 0.7 * slope / plain * streams)
        return Price(table, least, max(least, _LOOKUP_MS / plain))


class Priced(NamedTuple):
    """What a step may hold, and what it costs."""

    price: Price
    room: int
    """Drafted rows, of all streams."""
    limits: list[int]
    """Of each stream that is drafted for, the longest draft."""
    others: int
    """Streams that take it without one."""


def cut(
    reaches: Sequence[Sequence[float]],
    milliseconds: Sequence[float],
    room: int,
    others: int = 0,
) -> tuple[list[int], list[tuple[int, float, float]]]:
    """The lookahead of each stream, and the alternatives (rows, tokens, ms) that matter.

    ``reaches``: per stream the reach probability of each drafted token, falling along the chain,
    so that taking rows in falling order keeps chains whole. ``milliseconds[n]``: a step with n
    drafted rows, those of the ``others`` included, streams that have no drafts. Alternatives are
    plain decoding first, the best, and all rows.
    """
    streams = len(reaches)
    expected = float(streams + others)
    best_rate = expected / milliseconds[0]
    best = 0
    compared = [(0, expected, milliseconds[0])]
    if streams == 1:
        ordered = [(reach, 0) for reach in reaches[0]]
    else:
        ordered = [(reach, i) for i, chain in enumerate(reaches) for reach in chain]
        ordered.sort(reverse=True)
    best_alternative = compared[0]
    taken = 0
    for reach, _ in ordered[:room]:
        expected += reach
        taken += 1
        rate = expected / milliseconds[taken]
        # Of equals the shorter: within a bucket a row is free, so it only has to add something.
        if rate > best_rate:
            best_rate, best = rate, taken
            best_alternative = (taken, expected, milliseconds[taken])
    lookahead = [0] * streams
    for _, index in ordered[:best]:
        lookahead[index] += 1
    if best:
        compared.append(best_alternative)
    if taken > best:
        compared.append((taken, expected, milliseconds[taken]))
    return lookahead, compared
