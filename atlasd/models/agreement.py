"""Which numbers of rows give the same bits on this machine, found by trying.

A library is free to add up in another order for another number of rows, and some do so for every
number. Others keep one order over a range: MKL's float32 matmul with weights lying as [in, out]
agrees for every count from 2 on. Where that holds, a pass may be as small as its rows need, or as
large; where it does not, every pass has ``TILE`` rows. The order of additions does not depend on
the values, so rows of random numbers tell.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

TILE = 8
"""Rows of a pass where other numbers do not agree with it."""

ATTENTION_TILE = 4
"""Rows of one slot that attend together, likewise."""

PASS_SIZES = (2, 4, 8, 16)
UNIT_SIZES = (1, 2, 4, 8, 16)
TRIED_ROWS = max(PASS_SIZES)


@dataclass(frozen=True)
class Sizes:
    """Row counts, ascending, among which a row's bits are the same."""

    passes: tuple[int, ...] = (TILE,)
    units: tuple[int, ...] = (ATTENTION_TILE,)

    def pass_for(self, rows: int) -> int:
        """The smallest pass that holds ``rows``, or the largest there is."""
        return next((size for size in self.passes if size >= rows), self.passes[-1])

    def unit_for(self, rows: int) -> int:
        """The smallest unit that holds ``rows``, or the largest there is."""
        return next((size for size in self.units if size >= rows), self.units[-1])

    def split(self, rows: int) -> list[int]:
        """How many rows each pass of a call of ``rows`` takes: full ones, then the rest."""
        full, rest = divmod(rows, self.passes[-1])
        return [self.passes[-1]] * full + ([rest] if rest else [])

    def bucket(self, rows: int) -> int:
        """``rows`` with the padding of its passes."""
        return sum(self.pass_for(part) for part in self.split(rows))


def agreeing_sizes(run: Callable[[Sizes, list[int]], Tensor]) -> Sizes:
    """The sizes whose bits agree with ``TILE`` and ``ATTENTION_TILE``; single rows, if a row's
    place matters even there.

    ``run(sizes, order)`` decodes the same TRIED_ROWS rows in the given order and returns what came
    out, [TRIED_ROWS, ...] in that order. Orders differ, so that a row's place is tried too.
    """
    ascending = list(range(TRIED_ROWS))
    shuffled = torch.randperm(TRIED_ROWS, generator=torch.Generator().manual_seed(0)).tolist()
    fixed = Sizes()
    expected = run(fixed, ascending)

    def agrees(sizes: Sizes) -> bool:
        return all(
            torch.equal(run(sizes, order), expected[order]) for order in (ascending, shuffled)
        )

    if not agrees(fixed):
        return Sizes((1,), (1,))
    passes = [size for size in PASS_SIZES if size == TILE or agrees(Sizes((size,), fixed.units))]
    units = [
        size
        for size in UNIT_SIZES
        if size == ATTENTION_TILE or agrees(Sizes((passes[-1],), (size,)))
    ]
    return Sizes(tuple(passes), tuple(units))
