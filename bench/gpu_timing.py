"""The timed sections of gpu_check: steps by rows, attention at 32k, prefill, the peer."""

from __future__ import annotations

import gc
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from atlasd_kernels.gpu import attention as kernels
from atlasd_kernels.gpu.formats import Format

from atlasd.models.cuda_decoder import CudaDecoder
from atlasd.models.memory import SlotPlan
from bench import gpu_shapes
from bench.generating import generate
from bench.gpu_shapes import (
    device_ms,
    kv_bytes,
    plain_step,
    random_decoder,
    random_model,
    replayed,
    step_bytes,
    wall_ms,
)
from bench.gpu_step import kernels_launched, per_layer, profiled
from bench.shapes import SHAPES, shape_config

if TYPE_CHECKING:
    from bench.gpu_check import Check

FORMATS: tuple[Format, ...] = ("bf16", "fp8", "int8", "int4", "nvfp4")
CONTEXT = 4096
FAR = 32_768
PROMPT = 2048
ROWS = (1, 2, 4, 8, 16, 32, 64)


def free() -> None:
    """Give memory of closed decoders back."""
    gc.collect()
    torch.cuda.empty_cache()


def small_decoder(kind: str, layers: int = 4) -> CudaDecoder:
    """Some layers in the 0.5B shape, for checks that need a whole decoder."""
    config = replace(shape_config("0.5B"), layers=layers, sliding_window=(None,) * layers)
    return CudaDecoder(config, random_model(config, kind), SlotPlan(6, 512))  # type: ignore[arg-type]


def steps(check: Check) -> None:
    """Milliseconds, bytes, share of bandwidth and tokens per second, by shape, format and rows."""
    bandwidth = check.results["device"]["bandwidth_gb_s"] * 1e9
    found: dict[str, Any] = {}
    cells: list[list[object]] = []
    launched: set[int] = set()
    for shape in ("7B", "1.5B"):
        config = shape_config(shape)
        for kind in FORMATS:
            decoder = random_decoder(config, kind, CONTEXT + 128)
            reason = decoder.graphs.reason
            if reason:
                check.say(f"{shape} {kind}: eager, because {reason}")
            weights = step_bytes(config, kind)
            read = weights + kv_bytes(decoder, CONTEXT)
            with decoder.graphs.paused():
                launched.add(kernels_launched(plain_step(decoder, 1, 16)))
            for rows in ROWS:
                short = wall_ms(plain_step(decoder, rows, 16))
                far = wall_ms(plain_step(decoder, rows, CONTEXT))
                graph = device_ms(lambda d=decoder, r=rows: d.graphs.run(r))  # type: ignore[misc]
                limit = weights / bandwidth * 1e3
                key = f"{shape} {kind} {rows}"
                found[key] = {
                    "ms": short,
                    "ms_at_4k": far,
                    "graph_ms_at_4k": graph,
                    "share_of_weights_limit": limit / short,
                    "bytes": read,
                    "tokens_per_second": 1e3 / short,
                    "eager": reason,
                }
                moved = read / far * 1e3 / bandwidth
                over = far / found[f"{shape} {kind} 1"]["ms_at_4k"]
                line: list[object] = [shape, kind, rows, f"{short:.3f}", f"{far:.3f}"]
                line += [f"{far - graph:.3f}", f"{weights / 1e6:.0f}", f"{limit / short:.0%}"]
                line += [f"{moved:.0%}", f"{1e3 / short:.0f}", f"{over:.2f}"]
                cells.append(line)
            decoder.close()
            del decoder
            free()
    check.results["steps"] = found
    # Both shapes have 28 layers.
    kernels = ", ".join(f"{per_layer(n, config.layers):.0f}" for n in sorted(launched))
    check.table(
        f"Steps, {kernels} kernels a layer; wall time, decided on the device",
        [
            *("shape", "weights", "rows", "ms", "ms at 4k", "of it behind the graph", "MB"),
            *("of the weights-only limit", "of bandwidth at 4k", "plain tokens/s", "/ 1 row at 4k"),
        ],
        cells,
    )
    _targets(check, found)


def _targets(check: Check, found: dict[str, Any]) -> None:
    def rate(shape: str, kind: str) -> float:
        return float(found[f"{shape} {kind} 1"]["tokens_per_second"])

    def slower(rows: int) -> float:
        far = "ms_at_4k"
        return float(found[f"7B bf16 {rows}"][far] / found["7B bf16 1"][far])

    lines: list[tuple[str, float, float]] = [
        ("7B bf16, share of the weights-only limit", _share(found, "7B"), 0.80),
        ("1.5B bf16, likewise", _share(found, "1.5B"), 0.60),
        ("7B INT4 over bf16", rate("7B", "int4") / rate("7B", "bf16"), 2.0),
        ("7B NVFP4 over bf16", rate("7B", "nvfp4") / rate("7B", "bf16"), 2.0),
        ("7B NVFP4 over FP8", rate("7B", "nvfp4") / rate("7B", "fp8"), 1.3),
        ("7B 8 rows over 1 at 4k (at most)", slower(8), 1.05),
        ("7B 16 rows over 1 at 4k (at most)", slower(16), 1.10),
    ]
    check.results["targets"] = {what: (value, aim) for what, value, aim in lines}
    cells: list[list[object]] = [[what, f"{value:.2f}", aim] for what, value, aim in lines]
    check.table("Where it should be", ["what", "measured", "aim"], cells)


def _share(found: dict[str, Any], shape: str) -> float:
    return float(found[f"{shape} bf16 1"]["share_of_weights_limit"])


def profile(check: Check) -> None:
    """Where a step's time goes: device milliseconds by kernel, of an eager step at 4k."""
    steps = [("7B", "bf16", 1), ("7B", "nvfp4", 1), ("7B", "nvfp4", 16), ("1.5B", "bf16", 1)]
    for shape, kind, rows in steps:
        decoder = random_decoder(shape_config(shape), kind, CONTEXT + 128)  # type: ignore[arg-type]
        with decoder.graphs.paused():
            kernels = profiled(plain_step(decoder, rows, CONTEXT))
        total = sum(ms for _, _, ms in kernels)
        cells: list[list[object]] = [
            [name[:60], count, f"{ms:.3f}", f"{ms / total:.0%}"] for name, count, ms in kernels[:12]
        ]
        title = f"{shape} {kind}, {rows} rows: {total:.3f} ms in kernels"
        check.table(title, ["kernel", "launches", "ms", "share"], cells)
        check.results[f"profile {shape} {kind} {rows}"] = cells
        decoder.close()
        del decoder
        free()


def attention(check: Check) -> None:
    """One layer's attention in the 7B shape at 32k, a query of 8 rows over one of 1."""
    config, context, layers = shape_config("7B"), FAR - 8, 8
    shape = (layers, 2, 1, config.kv_heads, FAR, config.head_dim)
    cache = torch.randn(shape, device=gpu_shapes.DEVICE).to(gpu_shapes.compute_dtype())
    times = {}
    for rows in (1, 8):
        tiles = 1 if rows == 1 else 4
        query = torch.randn(rows, config.heads, config.head_dim, device=gpu_shapes.DEVICE).to(
            gpu_shapes.compute_dtype()
        )
        out = torch.empty_like(query)
        numbers = torch.tensor([[0], [0], [rows]], dtype=torch.int32, device=gpu_shapes.DEVICE)
        units = kernels.Units(numbers[0], numbers[1], numbers[2])
        positions = torch.arange(
            context, context + rows, dtype=torch.int32, device=gpu_shapes.DEVICE
        )
        parts = torch.empty(
            rows, config.heads, kernels.SPLITS, config.head_dim, device=gpu_shapes.DEVICE
        )
        stats = torch.empty(rows, config.heads, kernels.SPLITS, 2, device=gpu_shapes.DEVICE)

        def run(rows: int = rows, tiles: int = tiles, args: Any = (query, units, positions, out, parts, stats)) -> None:  # fmt: skip  # noqa: E501
            query, units, positions, out, parts, stats = args
            for keys, values in cache:
                kernels.attend(
                    query, keys, values, units, positions, out, parts, stats, count=rows,
                    unit_limit=1, tiles=tiles,
                )  # fmt: skip

        run()
        times[rows] = device_ms(replayed(run)) / layers
    read = cache[0].nbytes * context // shape[4]
    check.results["attention"] = times
    check.table(
        "Attention of a 7B layer at 32k",
        ["rows", "ms", "GB/s", "/ 1 row (at most 1.2)"],
        [[n, f"{t:.4f}", f"{read / t / 1e6:.0f}", f"{t / times[1]:.2f}"] for n, t in times.items()],
    )


def prefill(check: Check) -> None:
    """2,048 tokens of the 7B shape; share of the measured matmul peak (aim: 40 %)."""
    config, peak = shape_config("7B"), check.results["device"]["bf16_tflops"] * 1e12
    cells: list[list[object]] = []
    for kind in FORMATS:
        decoder = random_decoder(config, kind, 2 * PROMPT)
        tokens = np.arange(PROMPT, dtype=np.int32) % config.vocab_size

        def run(decoder: CudaDecoder = decoder, tokens: Any = tokens) -> object:
            rows = np.arange(len(tokens), dtype=np.int32)
            return decoder.forward(tokens, rows * 0, rows, rows[-1:], prefill=True)

        ms = wall_ms(run, rounds=5, warm=2)
        weights = config.parameters - 2 * config.vocab_size * config.hidden_size
        operations = 2.0 * weights * PROMPT
        operations += 2.0 * config.layers * config.heads * config.head_dim * PROMPT**2
        share = operations / ms * 1e3 / peak
        cells.append([kind, f"{ms:.1f}", f"{PROMPT / ms * 1e3:.0f}", f"{share:.0%}"])
        check.results[f"prefill {kind}"] = {"ms": ms, "share_of_peak": share}
        decoder.close()
        del decoder
        free()
    check.table(f"Prefill, 7B, {PROMPT:,} tokens", ["weights", "ms", "tokens/s", "of peak"], cells)


def peer(check: Check) -> None:
    """transformers on this card: bf16, static cache, compiled; tokens per second while decoding."""
    cells: list[list[object]] = []
    for shape in ("1.5B", "7B"):
        if check.left < 75:
            check.say(f"{shape}: no time left for compiling it")
            continue
        theirs = _transformers_rate(shape)
        free()
        ours = check.results["steps"][f"{shape} bf16 1"]["tokens_per_second"]
        check.results[f"peer {shape}"] = {"transformers": theirs, "atlasd": ours}
        cells.append([shape, f"{theirs:.1f}", f"{ours:.1f}", f"{ours / theirs:.2f}"])
    header = ["shape", "transformers tokens/s", "atlasd plain", "ratio (aim 1.5)"]
    check.table("Peer: transformers, static cache, compiled, bf16", header, cells)


def _transformers_rate(shape: str) -> float:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(**SHAPES[shape].as_json())
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            model = Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    prompt = torch.arange(16, device=gpu_shapes.DEVICE)[None] + 5

    def seconds(tokens: int) -> float:
        torch.cuda.synchronize()
        began = perf_counter()
        generate(model, prompt, tokens, cache_implementation="static")
        torch.cuda.synchronize()
        return perf_counter() - began

    for _ in range(3):
        seconds(160)
        seconds(32)
    # The difference leaves out prefill and what a call costs once.
    rates = [128 / (seconds(160) - seconds(32)) for _ in range(3)]
    return sorted(rates)[1]
