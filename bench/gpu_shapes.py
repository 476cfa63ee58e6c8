"""Random weights in the shapes of real models, on the device, and how long their steps take."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from atlasd_kernels.gpu.formats import Format, PackedMatrix, packed_bytes, quantise

from atlasd.models.config import ModelConfig
from atlasd.models.cuda_decoder import CudaDecoder
from atlasd.models.memory import SlotPlan
from atlasd.models.quant import HEAD_FORMATS, QuantLayer, QuantModel

DEVICE = torch.device("cuda")


def compute_dtype() -> torch.dtype:
    """Of activations: Triton's interpreter, on a CPU, does not multiply bf16."""
    return torch.float32 if DEVICE.type == "cpu" else torch.bfloat16


def random_matrix(rows: int, columns: int, kind: Format) -> PackedMatrix:
    """A packed matrix with memory of its own; a sample of rows is quantised and repeated."""
    sample = min(rows, 256)
    packed = quantise(torch.randn(sample, columns, device=DEVICE) * 0.02, kind)
    times = -(-rows // sample)
    groups = packed.groups
    if kind == "int4":
        groups = groups.repeat(1, times)[:, :rows].contiguous()
    elif groups.numel():
        groups = groups.repeat(times, 1)[:rows].contiguous()
    data = packed.data.repeat(times, 1)[:rows].contiguous()
    scales = packed.scales.repeat(times)[:rows].contiguous()
    return replace(packed, rows=rows, data=data, scales=scales, groups=groups)


def random_model(config: ModelConfig, kind: Format) -> QuantModel:
    """All weights of a configuration, bf16 activations."""
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    gain = torch.ones(hidden, device=DEVICE)
    bias = torch.zeros(q + 2 * kv, device=DEVICE)
    layers = [
        QuantLayer(
            gain,
            random_matrix(q + 2 * kv, hidden, kind),
            bias,
            None,
            random_matrix(hidden, q, kind),
            gain,
            random_matrix(2 * inner, hidden, kind),
            random_matrix(hidden, inner, kind),
        )
        for _ in range(config.layers)
    ]
    embedding = (torch.randn(config.vocab_size, hidden, device=DEVICE) * 0.02).bfloat16()
    head_kind = HEAD_FORMATS.get(kind, kind)
    if config.tied:
        head = quantise(embedding, head_kind)
    else:
        head = random_matrix(config.vocab_size, hidden, head_kind)
    return QuantModel(embedding, head, gain, layers)


def random_decoder(config: ModelConfig, kind: Format, slot_tokens: int) -> CudaDecoder:
    """A decoder of random weights with two slots."""
    return CudaDecoder(config, random_model(config, kind), SlotPlan(2, slot_tokens))


def step_bytes(config: ModelConfig, kind: Format) -> int:
    """Bytes of weights that a step reads: all but the embedding table."""
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer = packed_bytes(q + 2 * kv, hidden, kind) + packed_bytes(hidden, q, kind)
    layer += packed_bytes(2 * inner, hidden, kind) + packed_bytes(hidden, inner, kind)
    head = packed_bytes(config.vocab_size, hidden, HEAD_FORMATS.get(kind, kind))
    return config.layers * layer + head


def kv_bytes(decoder: CudaDecoder, context: int) -> int:
    """Bytes of keys and values that a step at this context reads."""
    held = decoder.memory_bytes()["slots"]
    return held * context // (decoder.slots * decoder.slot_tokens)


def device_ms(run: Callable[[], object], rounds: int = 20, warm: int = 3) -> float:
    """Median milliseconds between events around ``run``, after warm-up."""
    for _ in range(warm):
        run()
    times = []
    for _ in range(rounds):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def replayed(run: Callable[[], object]) -> Callable[[], object]:
    """``run`` as a CUDA graph; it has to have run before."""
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    replay: Callable[[], object] = graph.replay
    return replay


def wall_ms(run: Callable[[], object], rounds: int = 20, warm: int = 3) -> float:
    """Median milliseconds of a call that returns when it is done."""
    from time import perf_counter

    for _ in range(warm):
        run()
    times = []
    for _ in range(rounds):
        began = perf_counter()
        run()
        times.append((perf_counter() - began) * 1e3)
    return statistics.median(times)


def plain_step(decoder: CudaDecoder, rows: int, context: int) -> Callable[[], object]:
    """A step as the engine makes it, of one stream with ``rows`` rows, decided on the device."""
    from atlasd.models.decoder import RowNoise, Wanted

    at = np.arange(rows, dtype=np.int32)
    wanted = Wanted(at, [RowNoise()] * rows, [(0, rows)])

    def step() -> object:
        return decoder.verify(at + 5, at * 0, at + context, wanted)

    return step


def bandwidth() -> float:
    """Bytes a second that a copy of 2 GiB reads and writes, the best of ten."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device=DEVICE)
    target = torch.empty_like(source)
    best = min(device_ms(lambda: target.copy_(source), rounds=1, warm=0) for _ in range(10))
    return 2 * source.nbytes / best * 1e3


def matmul_peak() -> float:
    """bf16 operations a second of the library's matmul, 8192 cubed."""
    a = torch.randn(8192, 8192, device=DEVICE).bfloat16()
    return 2 * 8192**3 / device_ms(lambda: a @ a, rounds=10) * 1e3
