"""Row independence on the device: thousands of rows, each computed alone and among others.

Every comparison is of bits. A case is one row of one random step; a step has a random number of
rows in a random order, so that M, place and neighbours all change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from atlasd_kernels.gpu import attention, matmul, residual
from atlasd_kernels.gpu.formats import FORMATS, Format, quantise
from atlasd_kernels.gpu.tiling import decode_tiling
from torch import Tensor

from atlasd.models.cuda_decoder import CudaDecoder
from atlasd.models.cuda_layout import cut_units
from bench import gpu_shapes


@dataclass
class Tally:
    """Rows compared, and those that differed."""

    what: str
    cases: int = 0
    differing: int = 0

    def compare(self, one: Tensor, other: Tensor) -> None:
        """Count rows of two tensors [rows, ...]."""
        same = (one == other).flatten(1).all(1)
        self.cases += len(same)
        self.differing += int((~same).sum())


def check_matmul(kind: Format, n: int, k: int, steps: int, *, silu: bool) -> Tally:
    """One weight matrix [n, k], with partial sums or with the SiLU epilogue."""
    draw = torch.Generator(gpu_shapes.DEVICE).manual_seed(n + k)
    weight = quantise(torch.randn(n, k, device=gpu_shapes.DEVICE, generator=draw) * 0.02, kind)
    dtype = torch.float32 if kind == "fp32" else gpu_shapes.compute_dtype()
    x = torch.randn(64, k, device=gpu_shapes.DEVICE, generator=draw).to(dtype)
    squares = torch.rand(64, residual.blocks(k), device=gpu_shapes.DEVICE, generator=draw) * k
    tiling = decode_tiling(n, k, kind, whole=silu)

    def run(rows: Tensor) -> Tensor:
        some, count = x[rows], len(rows)
        if silu:
            out = torch.empty(count, n // 2, dtype=dtype, device=gpu_shapes.DEVICE)
            norm = (squares[rows].contiguous(), k, 1e-6)
            matmul.matmul(some, weight, out, tiling, count=count, norm=norm, silu=True)
            return out
        sums = torch.empty(tiling.splits, count, n, device=gpu_shapes.DEVICE)
        matmul.matmul(some, weight, sums, tiling, count=count)
        return sums.transpose(0, 1)

    return _tally(f"matmul {kind} {n}x{k}{' silu' if silu else ''}", run, steps, draw)


def _tally(what: str, run: Callable[[Tensor], Tensor], steps: int, draw: torch.Generator) -> Tally:
    tally = Tally(what)
    everyone = torch.arange(64, device=gpu_shapes.DEVICE)
    alone = torch.cat([run(everyone[row : row + 1]).clone() for row in range(64)])
    for _ in range(steps):
        count = int(torch.randint(1, 65, (), device=gpu_shapes.DEVICE, generator=draw))
        rows = torch.randperm(64, device=gpu_shapes.DEVICE, generator=draw)[:count]
        tally.compare(run(rows), alone[rows])
    return tally


def check_attention(group: int, context: int, steps: int, window: int | None) -> Tally:
    """Units of random lengths and places against every row alone."""
    kv_heads, dim, slots = 2, 128, 4
    draw, numbers = (
        torch.Generator(gpu_shapes.DEVICE).manual_seed(context),
        np.random.default_rng(context),
    )
    shape = (slots, kv_heads, -(-(context + 64) // 64) * 64, dim)
    keys = torch.randn(shape, device=gpu_shapes.DEVICE, generator=draw).to(
        gpu_shapes.compute_dtype()
    )
    values = torch.randn(shape, device=gpu_shapes.DEVICE, generator=draw).to(
        gpu_shapes.compute_dtype()
    )
    query = torch.randn(64, kv_heads * group, dim, device=gpu_shapes.DEVICE, generator=draw).to(
        gpu_shapes.compute_dtype()
    )

    def run(rows: Tensor, at: list[tuple[int, int]]) -> Tensor:
        where = np.array(at, np.int32)
        tiles = 4 if len(at) > 1 else 1 if group <= 16 else 2
        cut = cut_units(where[:, 0], where[:, 1], group, tiles)
        # Of one size, as in a decoder: where the rows of it begin decides what is compiled.
        told = np.zeros((3, 64), np.int32)
        told[:, : len(cut)] = np.array([(u.slot, u.first, u.rows) for u in cut], np.int32).T
        units = attention.Units(*torch.from_numpy(told).to(gpu_shapes.DEVICE))
        some = query[rows].contiguous()
        positions = torch.from_numpy(where[:, 1].copy()).to(gpu_shapes.DEVICE)
        heads = kv_heads * group
        parts = torch.empty(len(at), heads, attention.SPLITS, dim, device=gpu_shapes.DEVICE)
        stats = torch.empty(len(at), heads, attention.SPLITS, 2, device=gpu_shapes.DEVICE)
        out = torch.empty_like(some)
        attention.attend(
            some, keys, values, units, positions, out, parts, stats, count=len(at),
            unit_limit=len(cut), tiles=tiles, window=window,
        )  # fmt: skip
        return out

    tally = Tally(f"attention group {group} context {context} window {window}")
    for _ in range(steps):
        at: list[tuple[int, int]] = []
        for slot in numbers.permutation(slots)[: numbers.integers(1, slots + 1)]:
            first, count = int(numbers.integers(0, context)), int(numbers.integers(1, 17))
            at += [(int(slot), first + n) for n in range(count)]
        rows = torch.randperm(64, device=gpu_shapes.DEVICE, generator=draw)[: len(at)]
        together = run(rows, at).clone()
        for index in numbers.permutation(len(at))[:4].tolist():
            tally.compare(together[index : index + 1], run(rows[index : index + 1], [at[index]]))
    return tally


def check_decoder(decoder: CudaDecoder, steps: int, length: int = 48) -> Tally:
    """Logits of drafted rows among other streams against the same rows fed one by one."""
    numbers = np.random.default_rng(0)
    tally = Tally("decoder, end to end")
    streams = min(4, decoder.slots - 1)
    for _ in range(steps):
        tokens = numbers.integers(0, decoder.vocab_size, (streams, length)).astype(np.int32)
        alone = []
        for position in range(length):
            row = np.zeros(1, np.int32)
            logits = decoder.forward(tokens[0, position : position + 1], row, row + position, row)
            alone.append(logits[0].copy())
        fed = [0] * streams
        while fed[0] < length:
            rows = []
            for s in numbers.permutation(streams).tolist():
                end = min(length, fed[s] + int(numbers.integers(1, 17)))
                rows += [(s, p) for p in range(fed[s], end)]
            slots = np.array([s for s, _ in rows], np.int32)
            positions = np.array([p for _, p in rows], np.int32)
            wanted = np.flatnonzero(slots == 0).astype(np.int32)
            logits = decoder.forward(tokens[slots, positions], slots + 1, positions, wanted)
            for at, row in zip(logits, wanted.tolist(), strict=True):
                tally.cases += 1
                tally.differing += not np.array_equal(at, alone[positions[row]])
            for s, p in rows:
                fed[s] = max(fed[s], p + 1)
    return tally


def check_kernels(steps: int = 40) -> list[Tally]:
    """All kernels that mix rows, in all formats, in the shapes of 1.5B and 7B models."""
    tallies = []
    for kind in FORMATS:
        if kind != "fp32":
            shapes = [(2048, 1536), (3584, 3584), (3584, 18944), (1536, 8960)]
            tallies += [check_matmul(kind, n, k, steps, silu=False) for n, k in shapes]
            tallies.append(check_matmul(kind, 17920, 1536, steps, silu=True))
    for group in (6, 7, 8):
        tallies.append(check_attention(group, 3000, steps, None))
    tallies.append(check_attention(7, 30_000, steps, None))
    tallies.append(check_attention(4, 3000, steps, 500))
    return tallies
