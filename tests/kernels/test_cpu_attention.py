"""Attention where scores differ much, over several blocks, for all sizes of heads."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from atlasd_kernels.cpu import CpuDecoder
from transformers import PreTrainedModel

from tests.kernels.checkpoints import BASE, reference_logits, spec_of, tensors_of
from tests.kernels.conftest import ISAS
from tests.random_models import build

LENGTH = 300
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "heads of 16": ("llama", {"head_dim": 16, "num_attention_heads": 6}),
    "heads of 64": ("llama", {"head_dim": 64, "num_attention_heads": 6, "num_key_value_heads": 1}),
    "heads of 128": ("llama", {"head_dim": 128, "num_key_value_heads": 1}),
    "heads of 80": ("llama", {"head_dim": 80, "num_key_value_heads": 1}),
    "heads of 160": ("llama", {"head_dim": 160}),
    "heads of 272": ("llama", {"head_dim": 272, "num_key_value_heads": 1}),
    "a window": ("mistral", {"head_dim": 64, "sliding_window": 77, "num_key_value_heads": 1}),
}


@cache
def sharp_model(shape: str) -> PreTrainedModel:
    """A random model whose scores reach some forty: a block's largest is now and then far above
    all before."""
    kind, options = SHAPES[shape]

    def spread(name: str, parameter: torch.Tensor) -> float:
        factor = 5.0 if "q_proj" in name or "k_proj" in name else 1.0
        return factor / parameter.shape[-1] ** 0.5

    return build(kind, {**BASE, "num_hidden_layers": 2, **options}, spread, 0)


def decoder_of(shape: str, weight_format: Any, isa: str | None = None) -> CpuDecoder:
    model = sharp_model(shape)
    return CpuDecoder(
        spec_of(model),
        tensors_of(model),
        weight_format=weight_format,
        slot_tokens=LENGTH,
        threads=1,
        isa=isa,
    )


def tokens_of() -> np.ndarray:
    return np.random.default_rng(4).integers(0, 301, LENGTH).astype(np.int32)


def logits_of(decoder: CpuDecoder, rows: int) -> np.ndarray:
    """All logits, by calls of so many rows."""
    tokens, every = tokens_of(), np.arange(LENGTH, dtype=np.int32)
    found = []
    for begin in range(0, LENGTH, rows):
        some = every[begin : begin + rows]
        found.append(decoder.forward(tokens[some], some * 0, some, some - begin).copy())
    return np.concatenate(found)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", SHAPES)
def test_sharp_scores_agree_with_transformers(shape: str, isa: str) -> None:
    wanted = reference_logits(sharp_model(shape), tokens_of().tolist())
    found = logits_of(decoder_of(shape, "fp32", isa), LENGTH)
    error = np.sqrt(np.mean((found - wanted) ** 2, axis=1)) / wanted.std()
    assert error.max() < 1e-3, error.argmax()
    assert np.median(error) < 3e-5


@pytest.mark.parametrize("weight_format", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_queries_that_share_keys_change_no_bit(shape: str, weight_format: str) -> None:
    decoder = decoder_of(shape, weight_format)
    wanted = logits_of(decoder, 1)
    for rows in (2, 3, 4, 5, 8, 13, 24, 100):
        assert np.array_equal(logits_of(decoder, rows), wanted), rows
