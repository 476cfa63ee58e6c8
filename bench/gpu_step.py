"""One step of the GPU kernels by row bucket: milliseconds, bytes moved, share of the measured
bandwidth, kernels a layer, and where the rest goes. ``bench.step`` prints it where the GPU kernels
serve, ``bench.gpu_check`` for the shapes of real models.

A step takes ``wall`` milliseconds from call to tokens. Of these the replayed graph is ``graph`` on
the device, and what a graph's kernels do not add up to is the gaps between them; choosing and
accepting run behind the graph; what is left is the host's work and the read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from atlasd_kernels.gpu import accept, attention, choose, matmul, residual, rope
from atlasd_kernels.gpu.formats import FORMATS, Format

from atlasd.errors import ModelError
from atlasd.models.config import read_config
from atlasd.models.cuda_budget import whole_blocks
from atlasd.models.cuda_decoder import CudaDecoder
from atlasd.models.cuda_load import load_cuda
from atlasd.models.load import LoadOptions
from atlasd.models.locate import find_model
from atlasd.models.memory import SlotPlan
from bench.gpu_shapes import (
    bandwidth,
    device_ms,
    kv_bytes,
    plain_step,
    random_decoder,
    step_bytes,
    wall_ms,
)
from bench.report import table
from bench.shapes import shape_config

IN_GRAPH = ("matmuls", "attention", "rows")
KERNELS: dict[str, tuple[Any, ...]] = {
    "matmuls": (matmul.matmul_kernel,),
    "attention": (attention.attention_kernel, attention.combine_kernel),
    "rows": (residual.embed_kernel, residual.add_kernel, rope.rope_kernel),
    "choice": (choose.block_kernel, choose.row_kernel, accept.accept_kernel),
}
"""What a step launches, by part."""

PART_OF = {kernel.fn.__name__: part for part, kernels in KERNELS.items() for kernel in kernels}


class Clocks(Protocol):
    """How time is taken; milliseconds."""

    def wall(self, run: Callable[[], object]) -> float:
        """From call to return."""
        ...

    def device(self, run: Callable[[], object]) -> float:
        """On the device."""
        ...

    def kernels(self, run: Callable[[], object]) -> dict[str, float]:
        """On the device, by kernel's name."""
        ...


class CudaClocks:
    """Medians of a GPU's own events, and its profiler."""

    def wall(self, run: Callable[[], object]) -> float:
        return wall_ms(run)

    def device(self, run: Callable[[], object]) -> float:
        return device_ms(run)

    def kernels(self, run: Callable[[], object]) -> dict[str, float]:
        return {name: ms for name, _, ms in profiled(run)}


def profiled(run: Callable[[], object]) -> list[tuple[str, int, float]]:
    """(kernel, launches, milliseconds) of one run, the longest first."""
    from torch.profiler import ProfilerActivity, profile

    run()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        run()
    found = [(e.key, e.count, e.device_time_total / 1e3) for e in seen.key_averages()]
    return sorted(found, key=lambda each: -each[2])


@contextmanager
def launches() -> Iterator[Counter[str]]:
    """Counts kernels launched within, by part; replayed graphs launch none."""
    counted: Counter[str] = Counter()
    hooked = []
    for part, kernels in KERNELS.items():
        for kernel in kernels:

            def hook(*args: object, part: str = part, **kwargs: object) -> None:
                counted[part] += 1

            kernel.pre_run_hooks.append(hook)
            hooked.append((kernel.pre_run_hooks, hook))
    try:
        yield counted
    finally:
        for hooks, hook in hooked:
            hooks.remove(hook)


@dataclass(frozen=True)
class StepCost:
    """Of a step with ``rows`` rows of one stream; milliseconds."""

    rows: int
    wall: float
    graph: float
    """On the device, of the step up to its logits."""

    parts: dict[str, float]
    """On the device, by part of ``KERNELS`` and ``copies``, of a step without graphs."""

    launched: int
    """Kernels of the step up to its logits."""

    weight_bytes: int
    kv_bytes: int

    @property
    def moved(self) -> int:
        """Bytes that have to be read."""
        return self.weight_bytes + self.kv_bytes

    @property
    def gaps(self) -> float:
        """Of the graph: its kernels do not take it."""
        return max(0.0, self.graph - sum(self.parts.get(part, 0.0) for part in IN_GRAPH))

    @property
    def host(self) -> float:
        """Host work and the read."""
        behind = self.parts.get("choice", 0.0) + self.parts.get("copies", 0.0)
        return max(0.0, self.wall - self.graph - behind)


def measure(
    decoder: CudaDecoder, kind: Format, rows: int, context: int, clocks: Clocks
) -> StepCost:
    """Time a step of ``rows`` rows at this context, and take it apart."""
    step = plain_step(decoder, rows, context)
    wall = clocks.wall(step)
    graph = clocks.device(lambda: decoder.graphs.run(decoder.bucket(rows)))
    parts: dict[str, float] = {}
    with decoder.graphs.paused():
        launched = kernels_launched(step)
        for name, ms in clocks.kernels(step).items():
            part = PART_OF.get(name, "copies")
            parts[part] = parts.get(part, 0.0) + ms
    weights = step_bytes(decoder.config, kind)
    return StepCost(rows, wall, graph, parts, launched, weights, kv_bytes(decoder, context))


def kernels_launched(step: Callable[[], object]) -> int:
    """Kernels of a step without graphs, up to its logits."""
    with launches() as counted:
        step()
    return sum(counted[part] for part in IN_GRAPH)


def per_layer(launched: int, layers: int) -> float:
    """Embedding and head are no layer's."""
    return (launched - 2) / layers


HEADER = (
    *("rows", "ms", "MB", "GB/s", "of bandwidth", "kernels a layer"),
    *("matmuls ms", "attention ms", "other kernels ms", "gaps ms", "choice ms", "host, read ms"),
    "/ 1 row",
)


def cells(cost: StepCost, layers: int, rate: float, first: StepCost) -> list[object]:
    """A row of the table; ``first`` is the cost of one row."""
    reached = cost.moved / cost.wall * 1e3
    made: list[object] = [cost.rows, f"{cost.wall:.3f}", f"{cost.moved / 1e6:.0f}"]
    made += [
        f"{reached / 1e9:.0f}",
        f"{reached / rate:.0%}",
        f"{per_layer(cost.launched, layers):.0f}",
    ]
    made += [f"{cost.parts.get(part, 0.0):.3f}" for part in IN_GRAPH]
    made += [f"{cost.gaps:.3f}", f"{cost.parts.get('choice', 0.0):.3f}", f"{cost.host:.3f}"]
    return [*made, f"{cost.wall / first.wall:.2f}"]


def step_table(
    decoders: dict[Format, CudaDecoder],
    costs: dict[Format, list[StepCost]],
    context: int,
    rate: float,
) -> str:
    """Every format and bucket; ``rate`` is the memory's, bytes a second."""
    lines: list[list[object]] = []
    for kind, decoder in decoders.items():
        layers, first = decoder.config.layers, costs[kind][0]
        lines += [[kind, *cells(cost, layers, rate, first)] for cost in costs[kind]]
    eager = sorted({d.graphs.reason for d in decoders.values() if d.graphs.reason})
    title = f"A step at {context} tokens of context, {device_name()}; memory copies"
    title += f" {rate / 1e9:.0f} GB/s"
    title += f"; without graphs: {', '.join(eager)}" if eager else ""
    return table(title, ["weights", *HEADER], lines)


def gpu_table(
    model: str, shape: str | None, formats: list[str], rows: list[int], context: int
) -> str:
    """The table on this machine's GPU, of a model or of random weights in a shape."""
    decoders: dict[Format, CudaDecoder] = {}
    slots = whole_blocks(SlotPlan(2, context + max(rows)))
    for name in formats:
        if name not in FORMATS:
            raise ModelError(f"There is no weight format {name}.", f"Use {', '.join(FORMATS)}.")
        if shape is not None:
            decoders[name] = random_decoder(shape_config(shape), name, slots.slot_tokens)
        else:
            files = find_model(model)
            options = LoadOptions(
                weight_format=name, slots=slots.slots, slot_tokens=slots.slot_tokens
            )
            decoders[name] = load_cuda(files, read_config(files), options)[0]
    clocks = CudaClocks()
    costs = {
        kind: [measure(decoder, kind, n, context, clocks) for n in rows]
        for kind, decoder in decoders.items()
    }
    return step_table(decoders, costs, context, bandwidth())


def device_name() -> str:
    """Of the GPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
