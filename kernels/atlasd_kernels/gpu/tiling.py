"""How a matmul is cut into programs. A cut fixes the order in which a row's products are added,
so it depends on the weight's shape and format alone and never on the number of rows."""

from __future__ import annotations

from dataclasses import dataclass

from atlasd_kernels.gpu.formats import BITS, FOUR_BITS

ROWS = 16
"""Rows of one ``tl.dot`` while decoding. 16 is the M of the tensor cores' mma.sync, so every
number of rows runs the same instruction; 64 would be another one (wgmma) with bits of its own."""

MOST_TILES = 4
"""Tiles of ``ROWS`` rows that share a weight tile; more rows take further programs."""

PROGRAMS = 264
"""Programs that keep the largest GPUs' memory busy: two for each of an H100's 132 processors.
A constant, so that bits do not depend on the card."""

MOST_SPLITS = 8
LEAST_BYTES = 8 << 10
"""Of weights, for a program of a split."""

SHARED = 96 << 10
"""Bytes of shared memory that a decoding program may use: what every card since Ampere has."""

BLOCK_K = {"fp32": 32, "bf16": 128, "fp8": 128, "int8": 128, "int4": 256, "nvfp4": 256}


@dataclass(frozen=True)
class Tiling:
    """Programs of ``block_n`` weight rows each, ``splits`` of them along the columns."""

    block_n: int
    block_k: int
    splits: int
    warps: int = 4
    rows: int = ROWS
    """Rows of one ``tl.dot``."""

    def per_split(self, columns: int) -> int:
        """Blocks of columns that one program adds up."""
        blocks = -(-columns // self.block_k)
        return -(-blocks // self.splits)

    def empty_splits(self, columns: int) -> bool:
        """Whether a split would have no block."""
        return (self.splits - 1) * self.per_split(columns) * self.block_k >= columns

    def stages(self, kind: str, rows: int, shared: int = SHARED) -> int:
        """``num_stages`` that fit into ``shared`` bytes. This orders loads, not sums."""
        item = 4 if kind == "fp32" else 2
        weights = self.block_n * self.block_k * BITS[kind] / 8
        tile = weights + rows * self.block_k * item
        if self.rows == ROWS:
            # One block is in registers, the others on their way; 24 KiB of weights are enough.
            most = 3 + int(weights <= 12 << 10) + 2 * int(weights <= 6 << 10)
            return int(min(most, 1 + max(1, shared // tile)))
        # Quantised weights lie there once more when they are decoded.
        decoded = 0 if kind in ("fp32", "bf16") else self.block_n * self.block_k * item
        return int(min(4, max(1, (shared - decoded) // tile)))


def decode_tiling(rows: int, columns: int, kind: str, *, whole: bool) -> Tiling:
    """For up to 64 rows at a time. ``whole``: the epilogue needs the complete sum (no splits)."""
    # A warp reads all activations for its share of the outputs, so wide programs need fewer
    # instructions a weight; they must still be enough to keep the memory busy.
    wide = _cut(rows, columns, kind, 64, whole=whole)
    if -(-rows // 64) * wide.splits >= PROGRAMS and (whole or kind not in ("fp32", "bf16")):
        return wide
    return _cut(rows, columns, kind, 32, whole=whole)


def _cut(rows: int, columns: int, kind: str, block_n: int, *, whole: bool) -> Tiling:
    block_k = BLOCK_K[kind]
    if whole:
        return Tiling(block_n, block_k, 1)
    blocks, programs = -(-columns // block_k), -(-rows // block_n)
    # Each split is another partial sum to write and to read: at least 8 KiB of weights for it.
    least = -(-LEAST_BYTES * 8 // int(block_n * block_k * BITS[kind]))
    splits = max(1, min(MOST_SPLITS, blocks // least, -(-PROGRAMS // programs)))
    # As many as have blocks when each has the same number.
    return Tiling(block_n, block_k, -(-blocks // -(-blocks // splits)))


def prefill_tiling(kind: str) -> Tiling:
    """For many rows: bound by arithmetic, so blocks are large and wgmma may be used."""
    if kind in FOUR_BITS:
        return Tiling(64, BLOCK_K[kind], 1, warps=8, rows=64)
    if kind == "fp32":
        return Tiling(64, 32, 1, warps=8, rows=64)
    return Tiling(128, 64, 1, warps=8, rows=128)


def tiles_for(rows: int) -> int:
    """Tiles of ``ROWS`` that a decoding program takes for ``rows``: 1, 2 or 4."""
    return 1 if rows <= ROWS else 2 if rows <= 2 * ROWS else MOST_TILES
