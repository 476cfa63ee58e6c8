"""The residual stream: embedding gather, adding what a matmul brought, and the norm's first half.

The stream is float32. Beside it every kernel here leaves what the next matmul reads: x times the
norm's gain in the compute type, and the sum of x squared per block of columns (see ``matmul``).
"""

# mypy: allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="no-untyped-def,no-any-return,assignment"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from atlasd_kernels.gpu.launch import EXACT, compute_type

BLOCK = 256
"""Columns of one program, and of one partial sum of squares."""


def blocks(width: int) -> int:
    """Partial sums of squares of a row."""
    return -(-width // BLOCK)


def reference_embed(table: Tensor, tokens: Tensor) -> Tensor:
    """The residual stream [rows, width] at its start."""
    return table[tokens.long()].float()


def reference_add(hidden: Tensor, partial: Tensor) -> Tensor:
    """``hidden`` plus partial sums [splits, rows, width], added in ascending order."""
    total = torch.zeros_like(hidden)
    for part in partial:
        total = total + part
    return hidden + total


def reference_norm(hidden: Tensor, gain: Tensor) -> tuple[Tensor, Tensor]:
    """x times gain, and squares [rows, blocks]."""
    padded = torch.nn.functional.pad(hidden, (0, -hidden.shape[1] % BLOCK))
    return hidden * gain, (padded**2).view(len(hidden), -1, BLOCK).sum(2)


@triton.jit
def leave(value, hidden, gain, scaled, squares, row, column, width, COMPUTE: tl.constexpr):
    """Store a block of the stream, times the gain, and its sum of squares."""
    inside = column < width
    at = row * width + column
    tl.store(hidden + at, value, mask=inside)
    gained = value * tl.load(gain + column, mask=inside, other=0.0)
    tl.store(scaled + at, gained.to(COMPUTE), mask=inside)
    total = tl.sum(tl.where(inside, value * value, 0.0), 0)
    tl.store(squares + row * tl.num_programs(1) + tl.program_id(1), total)


@triton.jit
def embed_kernel(
    tokens, table, hidden, gain, scaled, squares, width,
    BLOCK: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Grid: rows, blocks of columns."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    token = tl.load(tokens + row).to(tl.int64)
    value = tl.load(table + token * width + column, mask=column < width, other=0.0)
    leave(value.to(tl.float32), hidden, gain, scaled, squares, row, column, width, COMPUTE)


@triton.jit(do_not_specialize=["rows"])
def add_kernel(
    partial, hidden, gain, scaled, squares, rows, width,
    SPLITS: tl.constexpr, BLOCK: tl.constexpr, COMPUTE: tl.constexpr,
):  # fmt: skip
    """Grid: rows, blocks of columns."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    total = tl.zeros((BLOCK,), tl.float32)
    for split in tl.static_range(SPLITS):
        at = (split * rows + row).to(tl.int64) * width + column
        total = total + tl.load(partial + at, mask=inside, other=0.0)
    value = tl.load(hidden + row * width + column, mask=inside, other=0.0) + total
    leave(value, hidden, gain, scaled, squares, row, column, width, COMPUTE)


def embed(
    tokens: Tensor, table: Tensor, hidden: Tensor, gain: Tensor, scaled: Tensor, squares: Tensor,
    *, count: int,
) -> None:  # fmt: skip
    """Start the stream of ``count`` rows: ``hidden`` float32 [any, width], ``scaled`` likewise in
    the compute type, ``squares`` float32 [any, blocks]. ``gain`` is the first norm's, float32."""
    width = table.shape[1]
    embed_kernel[(count, blocks(width))](
        tokens, table, hidden, gain, scaled, squares, width,
        BLOCK=BLOCK, COMPUTE=compute_type(scaled), num_warps=2, **EXACT,
    )  # fmt: skip


def add(
    partial: Tensor, hidden: Tensor, gain: Tensor, scaled: Tensor, squares: Tensor,
    *, count: int, splits: int,
) -> None:  # fmt: skip
    """Add partial sums [splits, count, width] to the stream of ``count`` rows; see ``embed``."""
    width = hidden.shape[1]
    add_kernel[(count, blocks(width))](
        partial, hidden, gain, scaled, squares, count, width,
        SPLITS=splits, BLOCK=BLOCK, COMPUTE=compute_type(scaled), num_warps=2, **EXACT,
    )  # fmt: skip
