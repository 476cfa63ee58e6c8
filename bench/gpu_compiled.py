"""What the compiler makes of a step's matmuls for a GPU that is not there, and what follows.

    python -m bench.gpu_compiled [--shapes 7B,1.5B] [--formats bf16,fp8,int8,int4,nvfp4] [--rows 1]

Registers, spills and instructions are read from the machine code for sm_90. From them and an H100
SXM's data sheet (3.35 TB/s; 132 processors of four schedulers at 1.755 GHz) two times are
*computed*: what reading the weights takes at least, and what issuing the instructions takes at
least. Nothing here is measured, and no kernel is as fast as the longer of the two.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import torch
from atlasd_kernels.gpu import matmul, residual
from atlasd_kernels.gpu.formats import BITS, BLOCK, FORMATS, FOUR_BITS, Format, PackedMatrix
from atlasd_kernels.gpu.tiling import Tiling, decode_tiling

from atlasd.models.config import ModelConfig
from atlasd.models.quant import HEAD_FORMATS
from bench.gpu_compiling import MachineCode, compile_for, machine_code, recorded
from bench.report import table
from bench.shapes import shape_config

PROCESSORS = 132
BYTES_PER_S = 3.35e12
LANES_PER_S = PROCESSORS * 4 * 32 * 1.755e9
SHARED = 227 << 10
LOADED = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Compiled:
    """A matmul of a step: [rows, columns] weights."""

    rows: int
    columns: int
    kind: Format
    tiling: Tiling
    stages: int
    code: MachineCode
    shared: int

    @property
    def programs(self) -> int:
        return -(-self.rows // self.tiling.block_n) * self.tiling.splits

    @property
    def per_weight(self) -> float:
        """Instructions of a lane."""
        weights = self.tiling.block_n * self.tiling.block_k / (32 * self.tiling.warps)
        return len(self.code.loop) / weights

    @property
    def in_flight(self) -> float:
        """Bytes of weights on their way to a processor, when all have begun."""
        fit = min(
            SHARED // self.shared, (64 << 10) // (self.code.registers * 32 * self.tiling.warps)
        )
        held = min(self.programs / PROCESSORS, fit)
        blocks = min(self.stages - 1, self.tiling.per_split(self.columns))
        return held * blocks * self.tiling.block_n * self.tiling.block_k * BITS[self.kind] / 8

    @property
    def reading_us(self) -> float:
        return self.rows * self.columns * BITS[self.kind] / 8 / BYTES_PER_S * 1e6

    @property
    def issuing_us(self) -> float:
        return self.rows * self.columns * self.per_weight / LANES_PER_S * 1e6


def compiled_matmul(
    n: int, k: int, kind: Format, count: int, *, gated: bool, head: bool
) -> Compiled:
    """As ``models.cuda_step`` launches it for ``count`` rows."""
    whole = gated or head
    tiling = decode_tiling(n, k, kind, whole=whole)

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, device="meta")

    stored = -(-k // BLOCK) * BLOCK // 2 if kind in FOUR_BITS else k
    groups = empty(0, dtype=torch.uint8)
    if kind == "int4":
        groups = empty(-(-k // BLOCK) * 2, n, dtype=torch.float16)
    elif kind == "nvfp4":
        groups = empty(n, -(-k // BLOCK) * 16, dtype=torch.uint8)
    data = empty(n, stored, dtype=LOADED.get(kind, torch.uint8))
    weight = PackedMatrix(kind, n, k, data, empty(n), groups)
    out = empty(tiling.splits, count, n)
    if gated:
        out = empty(count, n // 2, dtype=torch.bfloat16)
    norm = (empty(count, residual.blocks(k)), k, 1e-6) if whole else None
    wanted = empty(count, dtype=torch.int32) if head else None
    with recorded() as launches:
        matmul.matmul(
            empty(count, k, dtype=torch.bfloat16), weight, out, tiling, count=count, norm=norm,
            silu=gated, rows=wanted,
        )  # fmt: skip
    compiled = compile_for(launches[0])
    stages = int(launches[0].options["num_stages"])
    code = machine_code(compiled)
    return Compiled(n, k, kind, tiling, stages, code, int(compiled.metadata.shared))


def matmuls(config: ModelConfig, kind: Format, count: int) -> dict[str, tuple[int, Compiled]]:
    """How often a step does each, and what it is compiled to."""
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.layers
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim

    def one(
        n: int, k: int, kind: Format = kind, *, gated: bool = False, head: bool = False
    ) -> Compiled:
        return compiled_matmul(n, k, kind, count, gated=gated, head=head)

    return {
        "qkv": (layers, one(q + 2 * kv, hidden)),
        "output": (layers, one(hidden, q)),
        "gate, up": (layers, one(2 * inner, hidden, gated=True)),
        "down": (layers, one(hidden, inner)),
        "head": (1, one(config.vocab_size, hidden, HEAD_FORMATS.get(kind, kind), head=True)),
    }


HEADER = [
    *("shape", "weights", "matmul", "programs", "splits", "registers", "spilled", "stages"),
    *("instructions a weight", "KiB in flight a processor", "reading us", "issuing us"),
]


def lines(shape: str, kind: Format, count: int) -> list[list[object]]:
    """A line for every matmul, and one for the step."""
    made: list[list[object]] = []
    reading = issuing = longer = 0.0
    for name, (times, each) in matmuls(shape_config(shape), kind, count).items():
        line: list[object] = [shape, kind, name, each.programs, each.tiling.splits]
        line += [each.code.registers, each.code.spilled, each.stages, f"{each.per_weight:.2f}"]
        line += [f"{each.in_flight / 1024:.0f}", f"{each.reading_us:.1f}", f"{each.issuing_us:.1f}"]
        made.append(line)
        reading += times * each.reading_us
        issuing += times * each.issuing_us
        longer += times * max(each.reading_us, each.issuing_us)
    rest: list[object] = [""] * 6
    title = f"a step, the longer of both: {longer:.0f} us"
    return [*made, [shape, kind, title, *rest, "", f"{reading:.0f}", f"{issuing:.0f}"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", default="7B,1.5B")
    parser.add_argument("--formats", default=",".join(FORMATS[1:]))
    parser.add_argument("--rows", type=int, default=1)
    options = parser.parse_args()
    found = [
        line
        for shape in options.shapes.split(",")
        for kind in options.formats.split(",")
        for line in lines(shape, kind, options.rows)
    ]
    title = f"Matmuls of a step of {options.rows} rows as compiled for sm_90; times are computed"
    print(table(title, HEADER, found))


if __name__ == "__main__":
    main()
