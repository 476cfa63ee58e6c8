"""What a decoder takes of a GPU, told before anything is allocated; and what gives way when the
memory is not there after all."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from atlasd_kernels.gpu.attention import BLOCK_KV, SPLITS
from atlasd_kernels.gpu.formats import Format
from atlasd_kernels.gpu.noise import VALUES

from atlasd.errors import ModelError
from atlasd.models.config import ModelConfig
from atlasd.models.cuda_layout import BUCKETS
from atlasd.models.memory import FEWEST_TOKENS, SlotPlan, plan_slots
from atlasd.models.quant import model_bytes

log = logging.getLogger(__name__)
Made = TypeVar("Made")

GRAPH_BYTES = 96 << 20
"""CUDA graphs of all buckets and the compiled kernels, roughly."""

DRAFTER_SHARE = 0.05
"""Of the memory, kept free for a neural drafter and its adapter."""

PREFILL_ROWS = 1024
"""Rows of one prefill pass."""


@dataclass(frozen=True)
class Budget:
    """Bytes by purpose, and the slots they are for."""

    weights: int
    scratch: int
    slots: SlotPlan


def cache_item_bytes(kind: Format) -> int:
    """Bytes of a key or value component."""
    return 4 if kind == "fp32" else 2


def scratch_bytes(config: ModelConfig, kind: Format, slot_tokens: int) -> int:
    """Buffers of the decode and prefill steps."""
    item, decoded = cache_item_bytes(kind), BUCKETS[-1]
    width = config.heads * config.head_dim
    columns = width + 2 * config.kv_heads * config.head_dim
    row = config.hidden_size * (4 + item) + 2 * width * item + config.intermediate_size * item
    sums = 4 * max(columns, config.hidden_size)
    splits = 4 * SPLITS * config.heads * (config.head_dim + 2)
    decode = decoded * (row + 8 * sums + splits + 4 * config.vocab_size)
    tables = 4 * slot_tokens * config.head_dim + 4 * VALUES
    return decode + PREFILL_ROWS * (row + sums) + tables


def usable(free_bytes: int) -> int:
    """What is left for the model itself beside graphs and a drafter."""
    return free_bytes - GRAPH_BYTES - int(free_bytes * DRAFTER_SHARE)


def plan(
    name: str,
    config: ModelConfig,
    kind: Format,
    free_bytes: int,
    *,
    slots: int = 0,
    slot_tokens: int = 0,
) -> Budget:
    """Divide ``free_bytes``. Raises ModelError if not even one short slot fits."""
    weights = model_bytes(config, kind)
    scratch = scratch_bytes(config, kind, slot_tokens or config.max_positions)
    fitted = plan_slots(
        name,
        config,
        weights + scratch,
        usable(free_bytes),
        cache_item_bytes=cache_item_bytes(kind),
        slots=slots,
        slot_tokens=slot_tokens,
    )
    return Budget(weights, scratch, whole_blocks(fitted))


def whole_blocks(slots: SlotPlan) -> SlotPlan:
    """Slots of whole attention blocks."""
    return replace(slots, slot_tokens=-(-slots.slot_tokens // BLOCK_KV) * BLOCK_KV)


def smaller(slots: SlotPlan) -> SlotPlan | None:
    """The next plan to try when memory ran out: fewer slots, then shorter ones."""
    if slots.slots > 1:
        return replace(slots, slots=slots.slots // 2)
    if slots.slot_tokens > FEWEST_TOKENS:
        return replace(slots, slot_tokens=max(FEWEST_TOKENS, slots.slot_tokens // 2))
    return None


def shrinking(name: str, slots: SlotPlan, make: Callable[[SlotPlan, bool], Made]) -> Made:
    """What ``make(slots, graphs)`` gives, with as many slots as the memory really holds: fewer of
    them, then shorter ones, and at the very last no graphs. Each is logged."""
    graphs = True
    while True:
        try:
            return make(slots, graphs)
        except torch.OutOfMemoryError as error:
            less, reason = smaller(slots), str(error).splitlines()[0]
        # Outside of the handler: the exception's frames hold what was allocated. A decoder and its
        # graphs hold each other, so what was half made goes only when it is looked for.
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if less is not None:
            slots = less
            held = f"{slots.slots} slots of {slots.slot_tokens} positions"
            log.warning("out of GPU memory (%s): now %s", reason, held)
        elif graphs:
            graphs = False
        else:
            raise ModelError(
                f"{name} does not fit in the GPU's memory: one slot of {slots.slot_tokens}"
                " positions was too much.",
                "Close other programs, choose a smaller weight format, or use --device cpu.",
            )
