"""Launches of every kernel as a 7B-like decoder makes them, small where size does not matter."""

from __future__ import annotations

import torch
from atlasd_kernels.gpu import accept, attention, choose, matmul, residual, rope
from atlasd_kernels.gpu.formats import PackedMatrix, quantise
from atlasd_kernels.gpu.tiling import decode_tiling, prefill_tiling

HEADS, KV_HEADS, DIM, WIDTH = 28, 4, 128, 3584


def ints(count: int) -> torch.Tensor:
    return torch.ones(count, dtype=torch.int32)


def bf16(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.bfloat16)


def weight(kind: str, rows: int = 64) -> PackedMatrix:
    return quantise(torch.ones(rows, WIDTH), kind)  # type: ignore[arg-type]


def launch_matmul(kind: str, rows: int, *, prefill: bool = False) -> None:
    packed = weight(kind)
    tiling = prefill_tiling(kind) if prefill else decode_tiling(4608, WIDTH, kind, whole=False)
    splits = tiling.splits
    out = torch.zeros(splits, rows, 64)
    matmul.matmul(bf16(rows, WIDTH), packed, out, tiling, count=rows)


def launch_gate_up(kind: str, rows: int) -> None:
    norm = (torch.ones(rows, residual.blocks(WIDTH)), WIDTH, 1e-6)
    tiling = decode_tiling(64, WIDTH, kind, whole=True)
    out = bf16(rows, 32)
    matmul.matmul(
        bf16(rows, WIDTH), weight(kind), out, tiling, count=rows, norm=norm, silu=True,
        rows=ints(rows),
    )  # fmt: skip


def launch_attention(rows: int, tiles: int, window: int | None, whole: bool) -> None:
    cache = bf16(1, KV_HEADS, 256, DIM)
    units = attention.Units(ints(rows), ints(rows), ints(rows))
    parts = torch.zeros(rows, HEADS, attention.SPLITS, DIM)
    stats = torch.zeros(rows, HEADS, attention.SPLITS, 2)
    query, out = bf16(rows, HEADS, DIM), bf16(rows, HEADS, DIM)
    attention.attend(
        query, cache, cache, units, ints(rows), out, parts, stats, count=rows, unit_limit=rows,
        tiles=tiles, window=window, whole=whole,
    )  # fmt: skip


def launch_row_kernels() -> None:
    rows, blocks = 4, residual.blocks(WIDTH)
    hidden, gain, scaled = torch.zeros(rows, WIDTH), torch.zeros(WIDTH), bf16(rows, WIDTH)
    squares = torch.zeros(rows, blocks)
    residual.embed(ints(rows), bf16(9, WIDTH), hidden, gain, scaled, squares, count=rows)
    residual.add(torch.zeros(2, rows, WIDTH), hidden, gain, scaled, squares, count=rows, splits=2)
    columns = (HEADS + 2 * KV_HEADS) * DIM
    cache, table = bf16(1, KV_HEADS, 256, DIM), torch.zeros(256, DIM // 2)
    for bias, gains in ((torch.zeros(columns), None), (None, (gain, gain))):
        rope.finish_qkv(
            torch.zeros(2, rows, columns), squares, bias, gains, table, table, ints(rows),
            ints(rows), bf16(rows, HEADS, DIM), cache, cache, count=rows, splits=2, width=WIDTH,
            eps=1e-6,
        )  # fmt: skip
    vocabulary = 152_064
    out = choose.Choices(ints(rows), ints(rows * choose.TOP), torch.zeros(rows * choose.TOP))
    chooser = choose.Chooser(rows, vocabulary, torch.zeros(16))
    chooser.choose(
        torch.zeros(rows, vocabulary),
        torch.zeros(rows),
        torch.zeros(4, rows).int(),
        out,
        count=rows,
    )
    accept.accept(ints(rows), ints(rows), ints(2), ints(2), ints(2), parts=2)
