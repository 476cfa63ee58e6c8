"""How many slots of how many positions fit, before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from atlasd.errors import ModelError
from atlasd.models.config import ModelConfig

MOST_SLOTS = 16
MOST_TOKENS = 8192
FEWEST_TOKENS = 2048
GIB = 1 << 30


@dataclass(frozen=True)
class SlotPlan:
    """Slots and positions per slot."""

    slots: int
    slot_tokens: int


def plan_slots(
    name: str,
    config: ModelConfig,
    weight_bytes: int,
    budget: int,
    *,
    cache_item_bytes: int,
    slots: int = 0,
    slot_tokens: int = 0,
) -> SlotPlan:
    """Fit slots into what the weights leave of ``budget`` bytes; 0 means as many as fit.

    Slots are shortened to FEWEST_TOKENS, then given up down to one, before a ModelError says that
    the model does not fit.
    """
    token_bytes = 2 * config.layers * config.kv_heads * config.head_dim * cache_item_bytes
    tokens = slot_tokens or min(config.max_positions, MOST_TOKENS)
    shortest = tokens if slot_tokens else min(tokens, FEWEST_TOKENS)
    wanted = slots or MOST_SLOTS
    fewest = slots or 1
    left = budget - weight_bytes
    # Two slots let the next request keep its prefix while one decodes.
    while left < min(2, wanted) * tokens * token_bytes and tokens > shortest:
        tokens = max(tokens // 2, shortest)
    count = min(wanted, left // (tokens * token_bytes)) if left > 0 else 0
    if count < fewest:
        needed = weight_bytes + fewest * shortest * token_bytes
        raise ModelError(
            f"{name} needs {needed / GIB:.1f} GiB of memory; {budget / GIB:.1f} GiB may be used.",
            "Close other programs, or choose a smaller model: `atlasd models` lists which fit.",
        )
    return SlotPlan(int(count), tokens)
