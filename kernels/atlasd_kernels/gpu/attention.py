"""Attention of ragged rows over slots, with a row's bits independent of the other rows.

Rows of one slot form *units*: their query heads that share a key head are packed into up to four
16-row tiles, which share every tile of keys and values. While decoding, a slot is cut into splits
of a fixed size at absolute positions; each program does one split of one unit, and a second kernel
adds the splits in ascending order. The size grows with the row's own position (at most
``SPLITS`` splits), never with its neighbours. What a row may not see adds exact zeros.

In prefill a program takes its unit through the whole context and there is no second kernel.
"""

# mypy: allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="no-untyped-def,no-any-return,assignment"
# ruff: noqa: RUF005 (Triton compiles tuple + tuple, and no unpacking)
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from atlasd_kernels.gpu.launch import EXACT, compute_type, power_of_two
from atlasd_kernels.gpu.tiling import MOST_TILES, ROWS

SPLITS = 32
"""Most splits of a row."""

SMALLEST_SPLIT = 128
BLOCK_KV = 64
LOG2_E = 1.4426950408889634


@dataclass(frozen=True)
class Units:
    """Which rows attend together; int32 tensors on the device, [any]. Units of no rows are
    skipped."""

    slots: Tensor
    first: Tensor
    """The unit's first row; its rows are consecutive and of ascending positions."""

    rows: Tensor


def split_size(position: int) -> int:
    """Positions per split for a row at this position: a power of two."""
    return max(SMALLEST_SPLIT, power_of_two(position + 1) // SPLITS)


def most_splits(slot_tokens: int) -> int:
    """Splits that a row of a slot of this many positions can have."""
    return min(SPLITS, -(-slot_tokens // SMALLEST_SPLIT))


def unit_rows(group: int, tiles: int = MOST_TILES) -> int:
    """Rows of a unit when ``group`` query heads share a key head."""
    if group > ROWS * tiles:
        raise ValueError(f"{group} query heads per key head are more than a unit holds")
    return ROWS * tiles // group


def reference(
    query: Tensor, keys: Tensor, values: Tensor, slots: Tensor, positions: Tensor,
    window: int | None,
) -> Tensor:  # fmt: skip
    """Attention of every row by itself, in float32: [rows, heads, head_dim]."""
    group = query.shape[1] // keys.shape[1]
    out = torch.zeros(query.shape, dtype=torch.float32)
    for row, (slot, position) in enumerate(zip(slots.tolist(), positions.tolist(), strict=True)):
        begin = 0 if window is None else max(0, position + 1 - window)
        key = keys[slot, :, begin : position + 1].float().repeat_interleave(group, 0)
        value = values[slot, :, begin : position + 1].float().repeat_interleave(group, 0)
        scores = torch.einsum("hd,hpd->hp", query[row].float(), key) / query.shape[2] ** 0.5
        out[row] = torch.einsum("hp,hpd->hd", scores.softmax(1), value)
    return out


@triton.jit
def size_of_splits(position, SPLITS: tl.constexpr, SMALLEST: tl.constexpr):
    """``split_size`` on the device."""
    size = position * 0 + SMALLEST
    for _ in tl.static_range(16):
        size = tl.where(size * SPLITS <= position, size * 2, size)
    return size


@triton.jit
def attention_kernel(
    query, keys, values, unit_slots, unit_first, unit_count, positions, parts, stats, out,
    slot_tokens, scale,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, DIM: tl.constexpr,
    TILES: tl.constexpr, ROWS: tl.constexpr, BLOCK_KV: tl.constexpr, WINDOW: tl.constexpr,
    SPLITS: tl.constexpr, SMALLEST: tl.constexpr, WHOLE: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Grid: splits (1 if WHOLE), key heads, units."""
    split = tl.program_id(0)
    kv_head = tl.program_id(1)
    unit = tl.program_id(2)
    count = tl.load(unit_count + unit)
    if count == 0:
        return
    GROUP: tl.constexpr = HEADS // KV_HEADS
    first = tl.load(unit_first + unit)
    nearest = tl.load(positions + first)
    furthest = tl.load(positions + first + count - 1)
    begin = 0
    end = furthest + 1
    if not WHOLE:
        size = size_of_splits(nearest, SPLITS, SMALLEST)
        begin = split * size
        end = tl.minimum(begin + size, end)
    if WINDOW > 0:
        # Blocks that no row of the unit sees are passed over; to the others they add zeros.
        begin = tl.maximum(begin, (nearest - WINDOW + 1) // BLOCK_KV * BLOCK_KV)
    if begin >= end:
        return  # nobody reads this split

    lane = tl.arange(0, DIM)
    in_head = lane < HEAD_DIM
    queries, heads, rows, seen, valids = (), (), (), (), ()
    most, total, mixed = (), (), ()
    for t in tl.static_range(TILES):
        place = t * ROWS + tl.arange(0, ROWS)
        valid = place // GROUP < count
        row = tl.where(valid, first + place // GROUP, first)
        head = kv_head * GROUP + place % GROUP
        at = (row * HEADS + head)[:, None] * HEAD_DIM + lane[None, :]
        tile = tl.load(query + at, mask=valid[:, None] & in_head[None, :], other=0.0)
        queries = queries + (tile.to(COMPUTE),)
        heads = heads + (head,)
        rows = rows + (row.to(tl.int64),)
        valids = valids + (valid,)
        seen = seen + (tl.load(positions + row),)
        most = most + (tl.full((ROWS,), float("-inf"), tl.float32),)
        total = total + (tl.zeros((ROWS,), tl.float32),)
        mixed = mixed + (tl.zeros((ROWS, DIM), tl.float32),)

    slot = tl.load(unit_slots + unit)
    base = (slot * KV_HEADS + kv_head).to(tl.int64) * slot_tokens * HEAD_DIM
    for start in range(begin, end, BLOCK_KV):
        kv = start + tl.arange(0, BLOCK_KV)
        source = base + kv[:, None] * HEAD_DIM + lane[None, :]
        written = (kv < end)[:, None] & in_head[None, :]
        key = tl.trans(tl.load(keys + source, mask=written, other=0.0).to(COMPUTE))
        value = tl.load(values + source, mask=written, other=0.0).to(COMPUTE)
        new_most, new_total, new_mixed = (), (), ()
        for t in tl.static_range(TILES):
            scores = tl.dot(queries[t], key, input_precision="ieee") * scale
            visible = kv[None, :] <= seen[t][:, None]
            if WINDOW > 0:
                visible = visible & (kv[None, :] > seen[t][:, None] - WINDOW)
            scores = tl.where(visible, scores, float("-inf"))
            highest = tl.maximum(most[t], tl.max(scores, 1))
            level = tl.where(highest == float("-inf"), 0.0, highest)
            shrink = tl.exp2(most[t] - level)
            shares = tl.exp2(scores - level[:, None])
            new_most = new_most + (highest,)
            new_total = new_total + (total[t] * shrink + tl.sum(shares, 1),)
            kept = mixed[t] * shrink[:, None]
            new_mixed = new_mixed + (
                tl.dot(shares.to(COMPUTE), value, kept, input_precision="ieee"),
            )
        most, total, mixed = new_most, new_total, new_mixed

    for t in tl.static_range(TILES):
        target = rows[t] * HEADS + heads[t]
        stored = valids[t][:, None] & in_head[None, :]
        if WHOLE:
            result = tl.fdiv(mixed[t], total[t][:, None])
            tl.store(
                out + target[:, None] * HEAD_DIM + lane[None, :], result.to(COMPUTE), mask=stored
            )
        else:
            target = target * SPLITS + split
            tl.store(parts + target[:, None] * HEAD_DIM + lane[None, :], mixed[t], mask=stored)
            tl.store(stats + target * 2, most[t], mask=valids[t])
            tl.store(stats + target * 2 + 1, total[t], mask=valids[t])


@triton.jit
def combine_kernel(
    parts, stats, positions, out,
    HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, DIM: tl.constexpr, SPLITS: tl.constexpr,
    SMALLEST: tl.constexpr, WINDOW: tl.constexpr, COMPUTE: tl.constexpr, AT_ONCE: tl.constexpr,
):  # fmt: skip
    """Grid: rows, heads. Rows at position -1 are padding and come out as zeros."""
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    position = tl.load(positions + row)
    size = size_of_splits(position, SPLITS, SMALLEST)
    count = (position + size) // size
    begin = 0
    if WINDOW > 0:
        begin = tl.maximum(position - WINDOW + 1, 0) // size
    lane = tl.arange(0, DIM)
    base = (row * HEADS + head) * SPLITS
    split = tl.arange(0, SPLITS)
    inside = (split >= begin) & (split < count)
    levels = tl.load(stats + (base + split) * 2, mask=inside, other=float("-inf"))
    level = tl.max(levels, 0)
    total = 0.0
    mixed = tl.zeros((DIM,), tl.float32)
    # Several at a time, so that they are read together; SPLITS is a multiple. What lies outside
    # adds exact zeros.
    for start in range(begin // AT_ONCE * AT_ONCE, count, AT_ONCE):
        for n in tl.static_range(AT_ONCE):
            at = base + start + n
            read = (start + n >= begin) & (start + n < count)
            higher = tl.where(read, tl.load(stats + at * 2), level)
            weight = tl.where(read, tl.exp2(higher - level), 0.0)
            total = total + tl.where(read, tl.load(stats + at * 2 + 1), 0.0) * weight
            place = start + n + 0 * lane
            wanted = (place >= begin) & (place < count) & (lane < HEAD_DIM)
            part = tl.load(parts + at * HEAD_DIM + lane, mask=wanted, other=0.0)
            mixed = mixed + part * weight
    result = tl.fdiv(mixed, tl.where(position < 0, 1.0, total))
    at = (row * HEADS + head) * HEAD_DIM + lane
    tl.store(out + at, result.to(COMPUTE), mask=lane < HEAD_DIM)


def attend(
    query: Tensor, keys: Tensor, values: Tensor, units: Units, positions: Tensor, out: Tensor,
    parts: Tensor, stats: Tensor, *, count: int, unit_limit: int, tiles: int,
    window: int | None = None, whole: bool = False, splits: int = SPLITS,
) -> None:  # fmt: skip
    """Attention of ``count`` rows in the first ``unit_limit`` units, into ``out`` like ``query``.

    ``query`` [any, heads, head_dim]; ``keys`` and ``values`` [slots, kv_heads, slot_tokens,
    head_dim]; ``parts`` float32 [count, heads, SPLITS, head_dim] and ``stats`` [count, heads,
    SPLITS, 2] hold partial results, unless ``whole``. Rows of a unit have one ``split_size`` and
    there are at most ``unit_rows(group, tiles)`` of them. ``splits``: how many the furthest row
    has at most.
    """
    heads, head_dim = query.shape[1:]
    shared = {
        "HEADS": heads,
        "HEAD_DIM": head_dim,
        "DIM": max(16, power_of_two(head_dim)),
        "SPLITS": SPLITS,
        "SMALLEST": SMALLEST_SPLIT,
        "WINDOW": window or 0,
        "COMPUTE": compute_type(query),
        **EXACT,
    }
    attention_kernel[(1 if whole else splits, keys.shape[1], unit_limit)](
        query, keys, values, units.slots, units.first, units.rows, positions, parts, stats, out,
        keys.shape[2], LOG2_E / head_dim**0.5,
        KV_HEADS=keys.shape[1], TILES=tiles, ROWS=ROWS, BLOCK_KV=BLOCK_KV, WHOLE=whole,
        num_warps=4, num_stages=3 if head_dim * query.element_size() <= 256 else 1, **shared,
    )  # fmt: skip
    if not whole:
        combine_kernel[(count, heads)](
            parts, stats, positions, out, AT_ONCE=8, num_warps=2, **shared
        )
