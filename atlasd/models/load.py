"""From files to a decoder that serves: the GPU kernels, the native CPU kernels, or torch.

Where the native kernels serve, torch is never imported.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atlasd_kernels import cpu
from atlasd_kernels.cpu import WeightFormat as CpuFormat
from atlasd_kernels.spec import DecoderSpec

from atlasd.errors import ModelError
from atlasd.models.config import ModelConfig, read_config
from atlasd.models.decoder import Decoder
from atlasd.models.devices import (
    choose_device,
    free_cuda_memory,
    free_memory,
    measure_threads,
    multiplies_bf16,
)
from atlasd.models.locate import ModelFiles, Progress
from atlasd.models.memory import plan_slots
from atlasd.models.weights import open_weights

log = logging.getLogger(__name__)

WeightFormat = Literal["fp32", "bf16", "fp8", "int8", "int4", "nvfp4"]
"""FP8 and NVFP4 are served on a GPU only."""

BYTES_PER_WEIGHT: dict[CpuFormat, float] = {
    "fp32": 4.0,
    "bf16": 2.0,
    "int8": 1.15,
    "int4": 0.75,
}
"""Best first. With scales, and with the head in a finer format where that is the rule."""

WEIGHT_SHARE = 0.75
"""``auto`` wants the weights in this share of the budget: the rest is for slots."""


@dataclass(frozen=True)
class LoadOptions:
    """How a model is to be served."""

    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""

    weight_format: WeightFormat | Literal["auto"] = "auto"
    """``auto``: float32 stays fp32 and everything else is bf16, where the memory budget holds
    that; the best that it does hold, where integers are served (the CPU kernels)."""

    slots: int = 0
    """0: as many as the memory budget holds, at most 16."""

    slot_tokens: int = 0
    """Positions per slot; 0: what the model was made for, at most 8192."""

    threads: int = 0
    """0: measured. Measure once, keep the number: rows are exact at one thread count."""

    memory_bytes: int = 0
    """Budget for weights and slots together; 0: three quarters of what is free now."""

    cache_dir: Path | None = None
    """Where packed weights are kept between starts."""

    backend: Literal["auto", "native", "torch"] = "auto"


@dataclass(frozen=True)
class LoadedModel:
    """A decoder and what there is to say about it."""

    decoder: Decoder
    config: ModelConfig
    backend: str
    """``gpu kernels cuda``, ``cpu kernels``, ``torch cpu`` or ``torch cuda``."""

    weight_format: WeightFormat
    threads: int


def load_decoder(
    files: ModelFiles, options: LoadOptions | None = None, progress: Progress | None = None
) -> LoadedModel:
    """Load a model. Raises ModelError for what cannot be served or does not fit in memory."""
    options = options or LoadOptions()
    config = read_config(files)
    chosen = options.weight_format
    device = choose_device(options.device, options.backend)
    if device == "cuda" and options.backend == "auto":
        served = _load_cuda(files, config, options, progress)
        if served is not None:
            return served
    if chosen == "fp8" or chosen == "nvfp4":
        raise ModelError(
            f"{chosen} needs the GPU kernels, which do not serve here.",
            "Use auto, bf16, int8 or int4.",
        )
    weight_format = own_format(config) if chosen == "auto" else chosen
    native, reason = cpu.available()
    if device == "cpu" and options.backend != "torch" and native:
        if chosen == "auto":
            weight_format = fitting_format(config, options.memory_bytes or free_memory())
            if weight_format != own_format(config):
                log.info("%s is served in %s: more does not fit", files.name, weight_format)
        return _load_native(files, config, weight_format, options, progress)
    if options.backend == "native":
        raise ModelError(f"The CPU kernels do not load here: {reason}.", "Use the torch backend.")
    if weight_format not in ("fp32", "bf16"):
        raise ModelError(
            f"{weight_format} needs the CPU kernels, which do not serve here"
            f" ({reason or 'the device is ' + device}).",
            "Use fp32 or bf16.",
        )
    return _load_torch(files, config, weight_format, device, options, progress)


def own_format(config: ModelConfig) -> CpuFormat:
    """The format that keeps every weight of a checkpoint as it is."""
    return "fp32" if config.dtype == "float32" else "bf16"


def fitting_format(config: ModelConfig, budget: int) -> CpuFormat:
    """The best format, from the checkpoint's own on, whose weights leave room for slots in
    ``budget`` bytes; the smallest if none does."""
    formats = list(BYTES_PER_WEIGHT)
    for candidate in formats[formats.index(own_format(config)) :]:
        if config.parameters * BYTES_PER_WEIGHT[candidate] <= WEIGHT_SHARE * budget:
            return candidate
    return formats[-1]


def decoder_spec(config: ModelConfig) -> DecoderSpec:
    """A configuration as the kernels know it."""
    return DecoderSpec(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        layers=config.layers,
        heads=config.heads,
        kv_heads=config.kv_heads,
        head_dim=config.head_dim,
        intermediate_size=config.intermediate_size,
        rms_eps=config.rms_eps,
        inv_freq=config.rope.frequencies(),
        attention_factor=config.rope.attention_factor,
        tied=config.tied,
        qkv_bias=config.qkv_bias,
        qk_norm=config.qk_norm,
        sliding_window=config.sliding_window,
        max_positions=config.max_positions,
    )


def _load_cuda(
    files: ModelFiles,
    config: ModelConfig,
    options: LoadOptions,
    progress: Progress | None,
) -> LoadedModel | None:
    """The GPU kernels, or None, with the reason logged, where they do not serve."""
    from atlasd.models.cuda_load import load_cuda, unavailable

    if reason := unavailable():
        log.warning("the GPU is used through torch, which is slower: %s", reason)
        return None
    decoder, weight_format = load_cuda(files, config, options, progress)
    return LoadedModel(decoder, config, "gpu kernels cuda", weight_format, options.threads)


def _load_native(
    files: ModelFiles,
    config: ModelConfig,
    weight_format: CpuFormat,
    options: LoadOptions,
    progress: Progress | None,
) -> LoadedModel:
    weight_bytes = int(config.parameters * BYTES_PER_WEIGHT[weight_format])
    plan = plan_slots(
        files.name,
        config,
        weight_bytes,
        options.memory_bytes or free_memory(),
        cache_item_bytes=4 if weight_format == "fp32" else 2,
        slots=options.slots,
        slot_tokens=options.slot_tokens,
    )
    if progress:
        progress("packing weights", 0.0)
    decoder = cpu.CpuDecoder(
        decoder_spec(config),
        open_weights(files, config),
        weight_format=weight_format,
        slots=plan.slots,
        slot_tokens=plan.slot_tokens,
        threads=options.threads or None,
        cache_dir=options.cache_dir,
        identity=files.identity,
    )
    if progress:
        progress("packing weights", 1.0)
    return LoadedModel(decoder, config, "cpu kernels", weight_format, decoder.threads)


def _load_torch(
    files: ModelFiles,
    config: ModelConfig,
    weight_format: CpuFormat,
    device: str,
    options: LoadOptions,
    progress: Progress | None,
) -> LoadedModel:
    import torch

    from atlasd.models.llama import LlamaDecoder
    from atlasd.models.torch_weights import packed_bytes

    precision = torch.float32 if weight_format == "fp32" else torch.bfloat16
    # Without instructions for bf16, a library matmul of 8 rows is seven times slower in bf16 than
    # in float32; the values stay those of bf16.
    dtype = torch.float32 if device == "cpu" and not multiplies_bf16() else precision
    plan = plan_slots(
        files.name,
        config,
        packed_bytes(config, dtype.itemsize),
        options.memory_bytes or (free_memory() if device == "cpu" else free_cuda_memory()),
        cache_item_bytes=4 if device == "cpu" else dtype.itemsize,
        slots=options.slots,
        slot_tokens=options.slot_tokens,
    )
    decoder = LlamaDecoder(
        config,
        open_weights(files, config),
        precision=precision,
        dtype=dtype,
        device=device,
        slots=plan.slots,
        slot_tokens=plan.slot_tokens,
        progress=progress,
    )
    threads = options.threads
    if device == "cpu":
        threads = threads or measure_threads(decoder)
        torch.set_num_threads(threads)
        decoder.find_sizes()
    return LoadedModel(decoder, config, f"torch {device}", weight_format, threads)
