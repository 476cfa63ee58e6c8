"""Attention of a few rows of one slot, with bits that depend on nothing but each row.

Keys and values lie in blocks of ``BLOCK`` positions. Scores and weighted values are computed block
by block in matmuls of one fixed shape, however many blocks there are, and the blocks' parts are
added in ascending order; a block that a row may not see adds exact zeros. So neither the length of
the slot nor the other rows change a row's bits (``scaled_dot_product_attention`` does not keep
this).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BLOCK = 64
"""Positions of a block; also the rows of a prefill chunk."""

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Mask:
    """What rows may not see: -inf, added to the scores of the blocks from ``first`` on."""

    first: int
    bias: Tensor
    """[blocks - first, 1, rows * group, BLOCK]"""


@dataclass(frozen=True)
class Unit:
    """Rows of one slot that attend together, always the same number of them."""

    slot: int
    rows: Tensor
    """[size] indices into the pass; the last is repeated where there are fewer rows."""

    filled: int
    """How many of them are rows and not repetitions."""

    blocks: int
    """Blocks that the furthest row reaches into."""

    masks: dict[int | None, Mask]
    """By sliding window."""


def make_unit(
    slot: int,
    positions: Int64,
    rows: Int64,
    size: int,
    group: int,
    windows: set[int | None],
    device: torch.device,
) -> Unit:
    """A unit of ``size`` rows from those at ``rows`` of the pass. ``group``: query heads per key
    and value head."""
    filled = len(rows)
    padded = np.append(positions, np.repeat(positions[-1:], size - filled))
    blocks = int(padded.max()) // BLOCK + 1
    return Unit(
        slot=slot,
        rows=torch.from_numpy(np.append(rows, np.repeat(rows[-1:], size - filled))).to(device),
        filled=filled,
        blocks=blocks,
        masks={window: _mask(padded, blocks, window, group, device) for window in windows},
    )


def attend(
    query: Tensor, keys: Tensor, values: Tensor, unit: Unit, window: int | None, scale: float
) -> Tensor:
    """Attention of a unit's rows: [filled, heads * head_dim].

    ``query`` is [pass rows, at least heads, head_dim], the first heads being the query's; ``keys``
    and ``values`` are the unit's slot, [slot blocks, kv heads, BLOCK, head_dim].
    """
    blocks, size = unit.blocks, len(unit.rows)
    kv_heads, width = keys.shape[1], keys.shape[3]
    group_rows = unit.masks[window].bias.shape[2]
    heads = kv_heads * (group_rows // size)
    rows = query.index_select(0, unit.rows)[:, :heads]
    rows = rows.view(size, kv_heads, -1, width).transpose(0, 1).reshape(kv_heads, -1, width)
    spread = rows.expand(blocks, -1, -1, -1).reshape(-1, group_rows, width)
    seen = keys[:blocks].view(-1, BLOCK, width).transpose(1, 2)
    scores = torch.baddbmm(rows.new_empty(()), spread, seen, beta=0, alpha=scale)
    scores = scores.view(blocks, kv_heads, group_rows, BLOCK)
    mask = unit.masks[window]
    scores[mask.first :] += mask.bias
    side_by_side = scores.permute(1, 2, 0, 3).reshape(kv_heads, group_rows, -1)
    shares = side_by_side.softmax(dim=-1).view(kv_heads, group_rows, blocks, BLOCK)
    shares = shares.permute(2, 0, 1, 3).reshape(-1, group_rows, BLOCK)
    parts = torch.bmm(shares, values[:blocks].view(-1, BLOCK, width))
    mixed = parts.view(blocks, kv_heads, size, -1, width).sum(0)
    return mixed.transpose(0, 1).reshape(size, -1)[: unit.filled]


def _mask(
    positions: Int64, blocks: int, window: int | None, group: int, device: torch.device
) -> Mask:
    """The mask of rows at ``positions``. Blocks before the first row's own are seen whole, unless
    a window hides their beginning."""
    hidden_before = int(positions.max()) + 1 - window if window else 0
    first = 0 if hidden_before > 0 else int(positions.min()) // BLOCK
    columns = np.arange(first * BLOCK, blocks * BLOCK)
    hidden = columns > positions[:, None]
    if window:
        hidden |= columns <= positions[:, None] - window
    bias = np.where(hidden, np.float32(-np.inf), np.float32(0)).reshape(len(positions), -1, BLOCK)
    spread = np.repeat(bias.transpose(1, 0, 2), group, axis=1)[:, None]
    return Mask(first, torch.from_numpy(np.ascontiguousarray(spread)).to(device))
