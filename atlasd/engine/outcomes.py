"""What drafting has gained in a step, by what steps cost.

A token that a stream need not wait for saves a row of a later step, not the step, where others
decode on. Whole steps are saved by streams that all get ahead: in the share of those that draft.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple


class Step(NamedTuple):
    """One that was planned."""

    streams: int
    rows: int
    """Without those drafted."""
    kv_tokens: int


class Outcome(NamedTuple):
    """Of a step for one stream."""

    drafted: int
    accepted: int
    spent_ms: float
    """What planning and learning took."""
    by_all: int
    """Tokens drafted for all streams."""
    drafting: int
    """Streams that had some of them."""


def gains_ms(
    step: Step,
    beside_ms: float,
    outcomes: Iterable[Outcome],
    ms: Callable[[int, int], float],
) -> Iterator[float]:
    """For each outcome of steps like ``step``, the milliseconds that its draft has saved, less what
    its rows took. ``beside_ms``: of a step beside its rows; ``ms``: of a step of so many rows over
    so many tokens."""
    streams, rows, kv_tokens = step
    plain_ms = ms(rows, kv_tokens)
    row_ms = (plain_ms - ms(1, kv_tokens)) / (rows - 1) if streams > 1 else 0.0
    own_ms = row_ms * rows / streams
    fixed_ms = (plain_ms + beside_ms - row_ms * rows) / streams
    for drafted, accepted, _, by_all, drafting in outcomes:
        if drafted:
            more_ms = ms(rows + by_all, kv_tokens) - plain_ms
            saved_ms = own_ms + fixed_ms * drafting / streams
            yield accepted * saved_ms - more_ms * drafted / by_all
        else:
            yield 0.0
