"""One step of a decoder: where the milliseconds go, per number of rows, and beside peers.

    python -m bench.step [--device cpu|cuda] [--model FOLDER | --shape 0.5B] [--formats bf16,int8]
        [--threads 1,2] [--rows 1,2,4,8,16,32,64] [--rounds 9] [--context 200] [--prefill 1000]
        [--isa avx2] [--busy] [--called] [--transformers]
        [--llama-bench "chroot ROOT llama-bench" --gguf bf16=FILE --gguf int8=FILE ...]

Everything is measured in rounds, all candidates one after the other, so that whatever else the
machine does meets all of them. Ratios are medians over rounds. Where a GPU is there, its kernels
are measured instead of the CPU's (``bench.gpu_step``); threads, rounds and peers are the CPU's.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from atlasd_kernels.cpu import CpuDecoder, read_bandwidth
from atlasd_kernels.cpu.multistep import MOST_STREAMS
from atlasd_kernels.spec import DecoderSpec

from atlasd.models.config import read_config
from atlasd.models.devices import choose_device
from atlasd.models.load import decoder_spec
from atlasd.models.locate import find_model
from atlasd.models.weights import open_weights
from bench.report import table
from bench.shapes import SHAPES, shape_config
from bench.step_busy import busy_table
from bench.step_called import STEPS, called_table
from bench.step_peers import LlamaBench, Transformers, plain

BUNDLED = Path(__file__).resolve().parent.parent / "atlasd" / "models" / "bundled" / "target"


class RandomTensors(Mapping[str, np.ndarray]):
    """bf16 weights of a shape, made when asked for; matrices of one shape share their values."""

    def __init__(self, spec: DecoderSpec) -> None:
        s, dim = spec, spec.head_dim
        self._random = np.random.default_rng(0)
        self._made: dict[tuple[int, ...], np.ndarray] = {}
        self._shapes: dict[str, tuple[int, ...]] = {
            "embed_tokens": (s.vocab_size, s.hidden_size),
            "q_proj": (s.heads * dim, s.hidden_size),
            "k_proj": (s.kv_heads * dim, s.hidden_size),
            "v_proj": (s.kv_heads * dim, s.hidden_size),
            "o_proj": (s.hidden_size, s.heads * dim),
            "gate_proj": (s.intermediate_size, s.hidden_size),
            "up_proj": (s.intermediate_size, s.hidden_size),
            "down_proj": (s.hidden_size, s.intermediate_size),
        }

    def __getitem__(self, name: str) -> np.ndarray:
        shape = self._shapes.get(name.split(".")[-2], (self._shapes["o_proj"][0],))
        if name.endswith("bias"):
            shape = shape[:1]
        if shape not in self._made:
            bits = self._random.integers(0, 1 << 16, shape, dtype=np.uint16)
            # either sign, magnitudes from 2^-7 to 2^-5: no infinities, nothing vanishes
            self._made[shape] = (bits & np.uint16(0x80FF)) | np.uint16(0x3C00)
        return self._made[shape]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)


@dataclasses.dataclass
class Step:
    """Seconds of one step: in all without a profile; then, of one with it, matmuls and attention.
    What is left over is everything else."""

    wall: float
    matmul: float
    attention: float


def run_step(decoder: CpuDecoder, rows: int, context: int, profile_first: bool) -> Step:
    row = np.arange(rows, dtype=np.int32)
    tokens, slots, positions = row + np.int32(5), row * 0, row + np.int32(context)
    walls: dict[bool, float] = {}
    before = decoder.profile()
    for profiling in (profile_first, not profile_first):
        decoder.set_profiling(profiling)
        began = time.perf_counter()
        decoder.forward(tokens, slots, positions, row)
        walls[profiling] = time.perf_counter() - began
    decoder.set_profiling(False)
    after = decoder.profile()
    return Step(
        walls[False], after["matmul"] - before["matmul"], after["attention"] - before["attention"]
    )


def fill(decoder: CpuDecoder, length: int) -> float:
    """Prefill a slot with this many tokens in one call; seconds."""
    tokens = np.arange(length, dtype=np.int32) % 1000
    began = time.perf_counter()
    decoder.forward(tokens, tokens * 0, np.arange(length, dtype=np.int32), np.array([length - 1]))
    return time.perf_counter() - began


def middle(values: list[float]) -> float:
    return statistics.median(values)


Decoders = dict[tuple[str, int], CpuDecoder]


def step_table(decoders: Decoders, rows: list[int], rounds: int, context: int) -> str:
    steps: dict[tuple[str, int, int], list[Step]] = {}
    for decoder in decoders.values():
        fill(decoder, context + max(rows))
    for number in range(rounds):
        for (weight_format, threads), decoder in decoders.items():
            # in use, a step comes after one of the same model
            run_step(decoder, rows[0], context, profile_first=False)
            for count in rows:
                step = run_step(decoder, count, context, bool(number % 2))
                steps.setdefault((weight_format, threads, count), []).append(step)
    lines, known = [], []
    for (weight_format, threads), decoder in decoders.items():
        read = decoder.memory_bytes()["weights"]
        bandwidth = read_bandwidth(threads, read)
        known.append(f"{weight_format}, {threads} threads {bandwidth / 1e9:.1f}")
        first = steps[weight_format, threads, rows[0]]
        for count in rows:
            here = steps[weight_format, threads, count]
            wall = middle([s.wall for s in here])
            over = middle([a.wall / b.wall for a, b in zip(here, first, strict=True)])
            share = read / wall / bandwidth
            cells = [weight_format, threads, count, f"{wall * 1e3:.2f}", f"{read / 1e6:.0f}"]
            cells += [f"{read / wall / 1e9:.1f}", f"{share:.0%}"]
            for part in ("matmul", "attention"):
                cells.append(f"{middle([getattr(s, part) for s in here]) * 1e3:.2f}")
            cells.append(f"{middle([s.wall / s.matmul for s in here]):.2f}")
            lines.append([*cells, f"{over:.2f}"])
    header = ["weights", "threads", "rows", "ms", "MB", "GB/s", "of bandwidth", "matmuls ms"]
    header += ["attention ms", "step / matmuls", f"/ {rows[0]} row"]
    title = f"A step at {context} tokens of context; GB/s at which as many bytes are only read: "
    return table(title + "; ".join(known), header, lines)


def peer_table(decoders: Decoders, options: argparse.Namespace) -> str:
    """Plain decoding and prefill, tokens per second, each format beside its peers."""
    peers: list[Transformers | LlamaBench] = []
    threads = sorted({t for _, t in decoders})
    if options.transformers:
        shape = None if options.shape is None else SHAPES[options.shape]
        peers += [Transformers(Path(options.model), shape, t) for t in threads]
    for given in options.gguf:
        weight_format, path = given.split("=", 1)
        peers += [LlamaBench(options.llama_bench, path, weight_format, t) for t in threads]
    rates: dict[str, list[tuple[float, float]]] = {}
    for number in range(options.peer_rounds):
        for peer in peers if number % 2 else peers[::-1]:
            rates.setdefault(peer.name, []).append(peer.run(options.prefill, options.tokens))
            decoder = decoders[peer.weight_format, peer.threads]
            rates.setdefault(f"atlasd beside {peer.name}", []).append(
                (options.prefill / fill(decoder, options.prefill), plain(decoder, options.tokens))
            )
    lines = []
    for peer in peers:
        theirs, ours = rates[peer.name], rates[f"atlasd beside {peer.name}"]
        cells = [peer.name]
        for i in (1, 0):
            ratio = [a[i] / b[i] for a, b in zip(ours, theirs, strict=True)]
            cells += [
                f"{middle([t[i] for t in theirs]):.1f}",
                f"{middle([o[i] for o in ours]):.1f}",
            ]
            cells += [f"{middle(ratio):.2f} ({min(ratio):.2f} to {max(ratio):.2f})"]
        lines.append(cells)
    header = ["peer", "decoding, theirs", "ours", "ratio", "prefill, theirs", "ours", "ratio"]
    title = f"Tokens per second: {options.tokens} decoded, {options.prefill} prefilled"
    return table(title, header, lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=str(BUNDLED), help="a checkpoint folder")
    parser.add_argument("--shape", choices=SHAPES, help="random weights of this shape instead")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    parser.add_argument("--formats", help="default: bf16,int8,int4; on a GPU also fp8 and nvfp4")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--isa", help="the CPU kernels of this instruction set, not of the best")
    parser.add_argument("--rows", default="1,2,4,8,16,32,64")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--context", type=int, default=200)
    parser.add_argument("--prefill", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--busy", action="store_true", help="also with one processor kept busy")
    parser.add_argument("--called", action="store_true", help="also several steps in a call")
    parser.add_argument("--transformers", action="store_true", help="compare with generate, bf16")
    parser.add_argument("--llama-bench", default="llama-bench", help="the command that runs it")
    parser.add_argument("--gguf", action="append", default=[], help="FORMAT=FILE, for llama-bench")
    parser.add_argument("--peer-rounds", type=int, default=5)
    options = parser.parse_args(arguments)
    rows = [int(n) for n in options.rows.split(",")]
    if choose_device(options.device, "auto") == "cuda":
        from bench.gpu_step import gpu_table

        given = options.formats or "bf16,fp8,int8,int4,nvfp4"
        print(gpu_table(options.model, options.shape, given.split(","), rows, options.context))
        return
    if options.shape:
        spec = decoder_spec(shape_config(options.shape))
        tensors: Mapping[str, np.ndarray] = RandomTensors(spec)
    else:
        files = find_model(options.model)
        config = read_config(files)
        spec, tensors = decoder_spec(config), open_weights(files, config)
    room = max(options.prefill, options.context + max(rows) + STEPS, options.tokens)
    decoders: Decoders = {}
    formats: Any = options.formats or "bf16,int8,int4"
    for weight_format in formats.split(","):
        for threads in (int(n) for n in options.threads.split(",")):
            began = time.perf_counter()
            decoders[weight_format, threads] = CpuDecoder(
                dataclasses.replace(spec, max_positions=room),
                tensors,
                weight_format=weight_format,
                slot_tokens=room,
                threads=threads,
                isa=options.isa,
            )
            took = time.perf_counter() - began
            print(f"packed {weight_format} in {took:.2f} s", file=sys.stderr)
    print(step_table(decoders, rows, options.rounds, options.context))
    if options.busy:
        print(busy_table(decoders, options.rounds))
    if options.called:
        few = [n for n in rows if n <= MOST_STREAMS]
        print(called_table(decoders, few, options.rounds, options.context, busy=options.busy))
    if options.transformers or options.gguf:
        print(peer_table(decoders, options))


if __name__ == "__main__":
    main()
