"""``transformers.generate`` as benchmarks call it: greedy, to its full length."""

from __future__ import annotations

from typing import Any

import torch


def generate(model: Any, prompt: torch.Tensor, count: int, **options: Any) -> None:
    """Continue ``prompt`` [1, tokens] by ``count`` tokens."""
    model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        pad_token_id=0,
        **options,
    )
