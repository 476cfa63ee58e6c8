"""From files to a decoder on a GPU: the format, the memory plan, the packed weights, the graphs."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING

import torch
from atlasd_kernels.gpu.formats import Format

from atlasd.models.config import ModelConfig
from atlasd.models.devices import free_cuda_memory
from atlasd.models.locate import ModelFiles, Progress
from atlasd.models.weights import open_weights

if TYPE_CHECKING:
    from atlasd.models.cuda_decoder import CudaDecoder
    from atlasd.models.load import LoadOptions

log = logging.getLogger(__name__)


def unavailable() -> str:
    """Why the GPU kernels do not serve here; empty if they do."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if not torch.cuda.is_available():
        return "torch finds no GPU"
    if torch.version.hip is not None:
        return "the GPU is not NVIDIA's"
    if torch.cuda.get_device_capability() < (8, 0):
        return "the GPU is older than Ampere and does not multiply bf16"
    try:
        from triton.runtime import driver

        # Built on first use, by a C compiler: better to know now than at the first request.
        driver.active.utils  # noqa: B018
    except Exception as error:
        return f"Triton cannot launch kernels ({str(error).splitlines()[0]})"
    return ""


def load_cuda(
    files: ModelFiles,
    config: ModelConfig,
    options: LoadOptions,
    progress: Progress | None = None,
    device: str = "cuda",
) -> tuple[CudaDecoder, Format]:
    """The decoder and the weight format it serves. Raises ModelError if the model does not fit."""
    from atlasd.models.cuda_budget import PREFILL_ROWS, plan, scratch_bytes, shrinking, usable
    from atlasd.models.cuda_decoder import CudaDecoder
    from atlasd.models.memory import FEWEST_TOKENS, SlotPlan
    from atlasd.models.quant import choose_format
    from atlasd.models.quant_cache import load_quantised

    budget = options.memory_bytes or free_cuda_memory()
    own: Format = "fp32" if config.dtype == "float32" else "bf16"
    kind: Format = own
    if options.weight_format != "auto":
        kind = options.weight_format
    elif own == "bf16":
        tokens = options.slot_tokens or min(config.max_positions, FEWEST_TOKENS)
        token_bytes = 4 * config.layers * config.kv_heads * config.head_dim
        room = scratch_bytes(config, own, tokens) + 2 * tokens * token_bytes
        kind = choose_format(config, usable(budget), room)
        if kind != own:
            log.info("%s is served in %s: bf16 does not fit beside its slots", files.name, kind)
    divided = plan(
        files.name,
        config,
        kind,
        budget,
        slots=options.slots,
        slot_tokens=options.slot_tokens,
    )
    model = load_quantised(
        open_weights(files, config),
        config,
        kind,
        torch.device(device),
        cache_dir=options.cache_dir,
        identity=files.identity,
        progress=progress,
    )

    def make(slots: SlotPlan, graphs: bool) -> CudaDecoder:
        return CudaDecoder(
            config, model, slots, prefill_rows=PREFILL_ROWS, graphs=graphs, progress=progress
        )

    return shrinking(files.name, divided.slots, make), kind
