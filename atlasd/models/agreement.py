"""Which numbers of rows give the same bits on this machine, found by trying.

A library is free to add up in another order for another number of rows, and some do so for every
number. Others keep one order over a range: MKL's float32 matmul with weights lying as [in, out]
agrees for every count from 2 on. Where that holds, a pass may be as small as its rows need, or as
large; where it does not, every pass has ``TILE`` rows. The order of additions does not depend on
the values, so rows of random numbers tell.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

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


class Trial(Protocol):
    """Decodes the same TRIED_ROWS rows in a given order and with given sizes."""

    def __call__(self, sizes: Sizes, order: list[int], whole: bool) -> Tensor:
        """What came out, [TRIED_ROWS, ...] in that order: hidden states, and behind them, if
        ``whole``, logits."""
        ...


def agreeing_sizes(run: Trial) -> Sizes:
    """The sizes whose bits agree with ``TILE`` and ``ATTENTION_TILE``; single rows, if a row's
    place matters even there. Each is tried in two orders, so that every row has two places."""
    ascending = list(range(TRIED_ROWS))
    shuffled = torch.randperm(TRIED_ROWS, generator=torch.Generator().manual_seed(0)).tolist()
    fixed = Sizes()
    expected = run(fixed, ascending, True)

    def agrees(sizes: Sizes, whole: bool) -> bool:
        for order, through_head in ((ascending, False), (shuffled, whole)):
            given = run(sizes, order, through_head)
            if not torch.equal(given, expected[order, : given.shape[1]]):
                return False
        return True

    if not agrees(fixed, whole=True):
        return Sizes((1,), (1,))
    passes = [
        size for size in PASS_SIZES if size == TILE or agrees(Sizes((size,), fixed.units), True)
    ]
    units = [
        size
        for size in UNIT_SIZES
        if size == ATTENTION_TILE or agrees(Sizes((passes[-1],), (size,)), False)
    ]
    return Sizes(tuple(passes), tuple(units))
