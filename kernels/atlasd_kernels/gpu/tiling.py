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

    def stages(self, kind: str, rows: int, shared: int = SHARED) -> int:
        """Blocks in flight at once within ``shared`` bytes. This orders loads, not sums."""
        item = 4 if kind == "fp32" else 2
        tile = self.block_n * self.block_k * BITS[kind] / 8 + rows * self.block_k * item
        # Quantised weights lie there once more when they are decoded.
        decoded = 0 if kind in ("fp32", "bf16") else self.block_n * self.block_k * item
        return int(min(4, max(1, (shared - decoded) // tile)))


def decode_tiling(rows: int, columns: int, kind: str, *, whole: bool) -> Tiling:
    """For up to 64 rows at a time. ``whole``: the epilogue needs the complete sum (no splits)."""
    block_k = BLOCK_K[kind]
    wide = 64 if rows >= 64 * PROGRAMS else 32
    programs = -(-rows // wide)
    blocks = -(-columns // block_k)
    splits = 1
    if not whole:
        # Each split is another partial sum to write and read: at least four blocks a program.
        while splits < 8 and programs * splits < PROGRAMS and blocks >= 8 * splits:
            splits *= 2
    return Tiling(wide, block_k, splits)


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
