"""Laying the rows of a step out for the GPU: one int32 array that goes over in one copy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from atlasd_kernels.gpu.attention import split_size, unit_rows
from atlasd_kernels.gpu.tiling import ROWS, tiles_for

from atlasd.models.decoder import Int32

BUCKETS = (1, 2, 4, 8, 16, 32, 64)
"""Row counts of a decoding step; more rows take several."""

FIELDS = (
    "tokens",
    "slots",
    "positions",
    "unit_slots",
    "unit_first",
    "unit_rows",
    "wanted",
    "temperature",
    "seed_low",
    "seed_high",
    "choice",
    "output_index",
    "drafted",
    "part_first",
    "part_rows",
)
"""Rows of the array, [FIELDS, rows]. ``temperature`` holds float32 bits."""


@dataclass(frozen=True)
class Unit:
    """Rows of one slot that attend together."""

    slot: int
    first: int
    rows: int


def bucket_for(rows: int) -> int:
    """Rows of the steps that ``rows`` take, padding included."""
    whole, rest = divmod(rows, BUCKETS[-1])
    return whole * BUCKETS[-1] + (next(b for b in BUCKETS if b >= rest) if rest else 0)


def attention_tiles(bucket: int, group: int) -> int:
    """Row tiles of a unit in a step of this bucket; fixed, for a graph is captured with it."""
    return tiles_for(min(bucket * group, 4 * ROWS))


def cut_units(slots: Int32, positions: Int32, group: int, tiles: int) -> list[Unit]:
    """Units of consecutive rows of one slot, with one split size each."""
    most, units, first = unit_rows(group, tiles), list[Unit](), 0
    sizes = [split_size(position) for position in positions.tolist()]
    for row in range(1, len(slots) + 1):
        goes_on = (
            row < len(slots)
            and slots[row] == slots[first]
            and positions[row] == positions[row - 1] + 1
            and sizes[row] == sizes[first]
            and row - first < most
        )
        if not goes_on:
            units.append(Unit(int(slots[first]), first, row - first))
            first = row
    return units


def clear(array: npt.NDArray[np.int32]) -> None:
    """Leave nothing but padding, which belongs to no slot and to no unit."""
    array[:] = 0
    array[1:3] = -1


def lay_out(
    into: npt.NDArray[np.int32],
    tokens: Int32,
    slots: Int32,
    positions: Int32,
    wanted: Int32,
    group: int,
    tiles: int,
) -> int:
    """Fill the first seven fields of a cleared array [FIELDS, size]; how many units."""
    count = len(tokens)
    into[0, :count], into[1, :count], into[2, :count] = tokens, slots, positions
    units = cut_units(slots, positions, group, tiles)
    for index, unit in enumerate(units):
        into[3:6, index] = unit.slot, unit.first, unit.rows
    into[6, : len(wanted)] = wanted
    return len(units)
