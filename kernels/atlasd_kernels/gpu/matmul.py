"""x @ W.T for few rows and packed weights, with a row's bits independent of the other rows.

A program adds up ``block_n`` outputs over its columns in ascending blocks, always by the same
16-row ``tl.dot``; up to four row tiles share one weight tile, so 64 rows read the weights once.
Splits along the columns write partial sums [splits, rows, out], which the next kernel adds in
ascending order: no atomics anywhere.

Normalisation costs no pass of its own. The kernel before stores x times the norm's gain, and per
block of columns the sum of x squared; the epilogue multiplies by 1 / rms, which is one number per
row.
"""

# mypy: allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="no-untyped-def,no-any-return,assignment"
# ruff: noqa: RUF005 (Triton compiles tuple + tuple, and no unpacking)
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from atlasd_kernels.gpu.decode import decode_bytes, int4_tiles, nvfp4_tiles
from atlasd_kernels.gpu.formats import FOUR_BITS, PackedMatrix, dequantise
from atlasd_kernels.gpu.launch import EXACT, compute_type, power_of_two, shared_memory
from atlasd_kernels.gpu.tiling import ROWS, SHARED, Tiling, tiles_for


def reference(
    x: Tensor, weight: PackedMatrix, norm: tuple[Tensor, int, float] | None = None
) -> Tensor:
    """What the kernel approximates, in float32. ``norm`` is (squares, width, eps)."""
    out = x.float() @ dequantise(weight).t()
    return out if norm is None else out * inverse_rms(*norm)[:, None]


def reference_silu(x: Tensor, weight: PackedMatrix, norm: tuple[Tensor, int, float]) -> Tensor:
    """silu(gate) * up, gate and up being the even and odd rows of ``weight``."""
    gate, up = reference(x, weight, norm).unflatten(1, (-1, 2)).unbind(2)
    return torch.nn.functional.silu(gate) * up


def inverse_rms(squares: Tensor, width: int, eps: float) -> Tensor:
    """1 / rms [rows] from sums of squares [rows, blocks]."""
    return torch.rsqrt(squares.sum(1) / width + eps)


@triton.jit
def row_scale(squares, row, valid, blocks, width, eps, BLOCKS: tl.constexpr):
    """1 / rms of rows, from the sums of squares that their blocks left behind."""
    at = tl.arange(0, BLOCKS)
    parts = tl.load(
        squares + row[:, None] * blocks + at[None, :],
        mask=valid[:, None] & (at[None, :] < blocks),
        other=0.0,
    )
    return tl.rsqrt(tl.sum(parts, 1) / width + eps)


@triton.jit
def load_rows(x, row, valid, column, K, EVEN: tl.constexpr):
    if EVEN:
        return tl.load(x + row[:, None] * K + column[None, :], mask=valid[:, None], other=0.0)
    mask = valid[:, None] & (column[None, :] < K)
    return tl.load(x + row[:, None] * K + column[None, :], mask=mask, other=0.0)


@triton.jit(do_not_specialize=["M"])
def matmul_kernel(
    x, rows, weight, groups, scales, squares, out,
    M, N, K, per_split, blocks, width, eps,
    FORMAT: tl.constexpr, EPILOGUE: tl.constexpr, GATHER: tl.constexpr, NORM: tl.constexpr,
    TILES: tl.constexpr, ROWS: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCKS: tl.constexpr, EVEN: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Grid: row tiles, blocks of outputs, splits."""
    first = tl.program_id(0) * ROWS * TILES
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(2)
    # Outputs past the end read the last row's weights and are not stored.
    source = tl.minimum(column, N - 1).to(tl.int64)
    places, valids, total = (), (), ()
    for t in tl.static_range(TILES):
        place = first + t * ROWS + tl.arange(0, ROWS)
        valid = place < M
        if GATHER:
            place = tl.load(rows + place, mask=valid, other=0)
        places = places + (place.to(tl.int64),)
        valids = valids + (valid,)
        total = total + (tl.zeros((ROWS, BLOCK_N), tl.float32),)

    begin = split * per_split
    end = tl.minimum(begin + per_split, (K + BLOCK_K - 1) // BLOCK_K)
    if FORMAT == "int4":
        low_next = tl.load(groups + 2 * begin * N + source)
        high_next = tl.load(groups + (2 * begin + 1) * N + source)
    for block in range(begin, end):
        if (FORMAT == "int4") or (FORMAT == "nvfp4"):
            HALF: tl.constexpr = BLOCK_K // 2
            lane = tl.arange(0, HALF)
            width4 = (K + BLOCK_K - 1) // BLOCK_K * HALF
            raw = tl.load(weight + source[:, None] * width4 + (block * HALF + lane)[None, :])
            if FORMAT == "nvfp4":
                group = tl.arange(0, HALF // 16)
                at = groups + source[:, None] * (width4 // 8) + (block * (HALF // 8) + group)[None]
                low, high = nvfp4_tiles(raw, tl.load(at), tl.load(at + HALF // 16), COMPUTE)
            else:
                low, high = int4_tiles(raw, COMPUTE)
                low_scale, high_scale = low_next.to(tl.float32), high_next.to(tl.float32)
                # Too narrow for an asynchronous copy: asked for a block ahead.
                following = 2 * tl.minimum(block + 1, end - 1)
                low_next = tl.load(groups + following * N + source)
                high_next = tl.load(groups + (following + 1) * N + source)
            new = ()
            for t in tl.static_range(TILES):
                at_low = block * BLOCK_K + lane
                left = load_rows(x, places[t], valids[t], at_low, K, EVEN).to(COMPUTE)
                right = load_rows(x, places[t], valids[t], at_low + HALF, K, EVEN).to(COMPUTE)
                if FORMAT == "nvfp4":
                    sums = tl.dot(left, tl.trans(low), total[t], input_precision="ieee")
                    sums = tl.dot(right, tl.trans(high), sums, input_precision="ieee")
                else:
                    # The group's scale goes on the sums: 16 products a column instead of 128.
                    part = tl.dot(left, tl.trans(low), input_precision="ieee")
                    sums = total[t] + part * low_scale[None, :]
                    part = tl.dot(right, tl.trans(high), input_precision="ieee")
                    sums = sums + part * high_scale[None, :]
                new = new + (sums,)
            total = new
        else:
            lane = block * BLOCK_K + tl.arange(0, BLOCK_K)
            at = weight + source[:, None] * K + lane[None, :]
            raw = tl.load(at) if EVEN else tl.load(at, mask=lane[None, :] < K, other=0)
            tile = tl.trans(decode_bytes(raw, FORMAT, COMPUTE))
            new = ()
            for t in tl.static_range(TILES):
                some = load_rows(x, places[t], valids[t], lane, K, EVEN).to(COMPUTE)
                new = new + (tl.dot(some, tile, total[t], input_precision="ieee"),)
            total = new

    scale = tl.load(scales + source)
    for t in tl.static_range(TILES):
        target = (first + t * ROWS + tl.arange(0, ROWS)).to(tl.int64)
        sums = total[t] * scale[None, :]
        if NORM:
            factor = row_scale(squares, places[t], valids[t], blocks, width, eps, BLOCKS)
            sums = sums * factor[:, None]
        if EPILOGUE == "silu":
            gate, up = tl.split(tl.reshape(sums, (ROWS, BLOCK_N // 2, 2)))
            mixed = gate * tl.sigmoid(gate) * up
            half = tl.program_id(1) * (BLOCK_N // 2) + tl.arange(0, BLOCK_N // 2)
            mask = valids[t][:, None] & (half[None, :] < N // 2)
            tl.store(out + target[:, None] * (N // 2) + half[None, :], mixed.to(COMPUTE), mask)
        else:
            place = (split * M + target).to(tl.int64) * N
            mask = valids[t][:, None] & (column[None, :] < N)
            tl.store(out + place[:, None] + column[None, :], sums, mask)


def matmul(
    x: Tensor,
    weight: PackedMatrix,
    out: Tensor,
    tiling: Tiling,
    *,
    count: int,
    norm: tuple[Tensor, int, float] | None = None,
    silu: bool = False,
    rows: Tensor | None = None,
) -> None:
    """Multiply the first ``count`` rows of ``x``, or those at ``rows``.

    ``x`` is [any, columns] in the compute type. ``out`` is float32 [splits, count, out], or with
    ``silu`` [count, out / 2] in the compute type. ``norm`` is (squares [any, blocks], the width
    they were taken over, eps) and, like ``silu``, asks for a tiling without splits.
    """
    if (norm is not None or silu) and tiling.splits > 1:
        raise ValueError("an epilogue needs the whole sum")
    tile_rows = tiling.rows
    tiles = tiles_for(count) if tile_rows == ROWS else 1
    squares, width, eps = norm or (weight.scales, 1, 0.0)
    blocks = squares.shape[1] if norm else 1
    shared = SHARED if tile_rows == ROWS else shared_memory()
    whole_blocks = weight.columns % (tiling.block_k) == 0
    if weight.format in FOUR_BITS and tiling.block_k != 256:
        raise ValueError("four-bit weights lie in blocks of 256 columns")
    if tiling.empty_splits(weight.columns):
        raise ValueError("a split without columns")
    grid = (
        -(-count // (tile_rows * tiles)),
        -(-weight.rows // tiling.block_n),
        tiling.splits,
    )
    matmul_kernel[grid](
        x,
        x if rows is None else rows,
        weight.data,
        weight.groups if weight.groups.numel() else weight.data,
        weight.scales,
        squares,
        out,
        count,
        weight.rows,
        weight.columns,
        tiling.per_split(weight.columns),
        blocks,
        width,
        eps,
        FORMAT=weight.format,
        EPILOGUE="silu" if silu else "plain",
        GATHER=rows is not None,
        NORM=norm is not None,
        TILES=tiles,
        ROWS=tile_rows,
        BLOCK_N=tiling.block_n,
        BLOCK_K=tiling.block_k,
        BLOCKS=power_of_two(blocks),
        EVEN=whole_blocks,
        COMPUTE=compute_type(x),
        num_warps=tiling.warps,
        num_stages=tiling.stages(weight.format, tile_rows * tiles, shared),
        **EXACT,
    )
