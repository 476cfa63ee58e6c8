"""Attention over an fp16 cache with fp16 multiply-adds: what these cannot tell is computed with
fp32 sums instead, and what a row does not see changes none of its bits."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from atlasd_kernels.cpu import CpuDecoder
from transformers import PreTrainedModel

from tests.kernels.checkpoints import BASE, reference_logits, spec_of, tensors_of
from tests.kernels.conftest import ISAS
from tests.kernels.test_cpu_attention import LENGTH, SHAPES, logits_of, sharp_model, tokens_of
from tests.random_models import build

pytestmark = pytest.mark.skipif(
    "avx512fp16" not in ISAS, reason="this processor, or the compiler, has no AVX512-FP16"
)

KEY_BIASES = [10.0, 30.0, 300.0, 3000.0]
"""Scores come near what fp16 sums tell, reach it now and then, and leave it in every head."""


@cache
def biased_model(part: str, bias: float) -> PreTrainedModel:
    """Keys or values that differ little from one large one, as those of Qwen2.5 do. Its angles
    hardly change from one position to the next."""

    def spread(name: str, parameter: torch.Tensor) -> float:
        return 1.0 / math.sqrt(parameter.shape[-1])

    options = {"rope_theta": 1e6, "num_hidden_layers": 2, "num_key_value_heads": 1}
    model = build("qwen2", {**BASE, "hidden_size": 256, **options}, spread)
    for name, parameter in model.named_parameters():
        if f"{part}_proj.bias" in name:
            with torch.no_grad():
                parameter[20::32] += bias
    return model


def decoder_of(
    model: PreTrainedModel,
    isa: str = "avx512fp16",
    tensors: dict[str, np.ndarray] | None = None,
    weight_format: Any = "bf16",
) -> CpuDecoder:
    return CpuDecoder(
        spec_of(model),
        tensors or tensors_of(model, bf16=True),
        weight_format=weight_format,
        slot_tokens=LENGTH,
        threads=1,
        isa=isa,
    )


def error(model: PreTrainedModel, isa: str) -> float:
    """Of logits against transformers in float32 over the same bf16 weights; half of the rows have
    less."""
    rounded = build(model.config.model_type, model.config.to_dict(), lambda *_: 0.0)
    rounded.load_state_dict({k: v.bfloat16().float() for k, v in model.state_dict().items()})
    wanted = reference_logits(rounded, tokens_of().tolist())
    found = logits_of(decoder_of(model, isa), LENGTH)
    return float(np.median(np.sqrt(np.mean((found - wanted) ** 2, axis=1))) / wanted.std())


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_is_lost_against_fp32_sums_over_a_bf16_cache(shape: str) -> None:
    model = sharp_model(shape)
    assert error(model, "avx512fp16") < error(model, "avx512")


@pytest.mark.parametrize("bias", KEY_BIASES)
def test_large_keys_are_summed_in_fp32(bias: float) -> None:
    """A bf16 cache loses five times as much where keys are large, fp16 sums alone twice."""
    model = biased_model("k", bias)
    part = 0.3 if bias >= 300 else 1.0
    assert error(model, "avx512fp16") < part * error(model, "avx512")


@pytest.mark.parametrize("bias", [200.0, 3000.0, 40000.0])
def test_large_values_are_summed_in_fp32(bias: float) -> None:
    """Sums in fp16 would be infinite from some hundreds on."""
    assert error(biased_model("v", bias), "avx512fp16") < 3e-3


@pytest.mark.parametrize("part", ["k", "v"])
@pytest.mark.parametrize("bias", KEY_BIASES)
def test_a_query_that_needs_fp32_sums_changes_no_other(part: str, bias: float) -> None:
    decoder = decoder_of(biased_model(part, bias))
    wanted = logits_of(decoder, 1)
    for rows in (2, 5, 13, 100):
        assert np.array_equal(logits_of(decoder, rows), wanted), rows


@pytest.mark.parametrize("weight_format", ["bf16", "int8", "int4"])
@pytest.mark.parametrize("shape", SHAPES)
def test_positions_that_a_row_does_not_see_may_hold_anything(
    shape: str, weight_format: str
) -> None:
    """Drafts that were not taken, here of a token whose keys and values are no numbers, lie behind
    a row in its block."""
    model = sharp_model(shape)
    tensors, hole = tensors_of(model, bf16=True), 300
    embedding = tensors["model.embed_tokens.weight"].copy()
    embedding[hole] = 0x7FC0
    decoder = decoder_of(
        model,
        tensors={**tensors, "model.embed_tokens.weight": embedding},
        weight_format=weight_format,
    )
    tokens = np.where(tokens_of() == hole, 0, tokens_of())
    every = np.arange(LENGTH, dtype=np.int32)
    wanted = decoder.forward(tokens, every * 0, every, every).copy()
    assert np.isfinite(wanted).all()
    decoder.forward(every * 0 + hole, every * 0, every, every[:1])
    for begin in range(0, LENGTH, 10):
        some = every[begin : begin + 25]
        drafted = np.where(some < begin + 10, tokens[some], hole).astype(np.int32)
        found = decoder.forward(drafted, some * 0, some, every[:10])
        assert np.array_equal(found, wanted[begin : begin + 10]), begin
