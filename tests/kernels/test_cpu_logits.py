"""The CPU decoder's logits against transformers'."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from atlasd_kernels.cpu import CpuDecoder

from tests.kernels.checkpoints import FAMILIES, make_model, reference_logits, spec_of, tensors_of
from tests.kernels.conftest import ISAS

LENGTH = 150
# int8 and int4 are held to what rounding the weights alone does, see below
TOLERANCE = {"fp32": 1e-4, "bf16": 0.03}


def all_logits(decoder: CpuDecoder, tokens: np.ndarray) -> np.ndarray:
    rows = np.arange(len(tokens), dtype=np.int32)
    return decoder.forward(tokens, np.zeros_like(rows), rows, rows).copy()


def tokens_of(vocab: int, length: int = LENGTH) -> np.ndarray:
    return np.random.default_rng(1).integers(0, vocab, length).astype(np.int32)


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((found - wanted) ** 2)) / wanted.std())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("family", FAMILIES)
def test_fp32_logits_agree_with_transformers(
    family: str, isa: str, make_decoder: Callable[..., CpuDecoder]
) -> None:
    model = make_model(family)
    tokens = tokens_of(model.config.vocab_size)
    wanted = reference_logits(model, tokens.tolist())
    found = all_logits(make_decoder(family, weight_format="fp32", isa=isa), tokens)
    assert relative(found, wanted) < TOLERANCE["fp32"]


def round_inputs(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    return tuple(x.bfloat16().to(x.dtype) for x in inputs)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_weights_give_what_transformers_gives_with_rounded_weights(
    family: str, isa: str
) -> None:
    model = make_model(family)
    tensors = tensors_of(model, bf16=True)
    rounded = model.bfloat16().float()
    if isa == "amx":  # tiles read activations in bf16 as well
        for module in rounded.modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(round_inputs)
    tokens = tokens_of(model.config.vocab_size)
    wanted = reference_logits(rounded, tokens.tolist())
    decoder = CpuDecoder(
        spec_of(rounded), tensors, weight_format="bf16", slot_tokens=LENGTH, threads=1, isa=isa
    )
    # what remains is the cache, which keeps bf16 keys and values
    assert relative(all_logits(decoder, tokens), wanted) < TOLERANCE["bf16"]
    decoder.close()


@pytest.mark.parametrize(("weight_format", "most"), [("int8", 0.03), ("int4", 0.25)])
def test_integer_weights_stay_near_the_checkpoint(weight_format: Any, most: float) -> None:
    model = make_model("qwen2")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers" in name and parameter.ndim == 2:
                parameter.mul_(0.3)  # not chaotic: errors add up instead of multiplying
    tokens = tokens_of(model.config.vocab_size)
    wanted = reference_logits(model, tokens.tolist())
    decoder = CpuDecoder(
        spec_of(model),
        tensors_of(model),
        weight_format=weight_format,
        slot_tokens=LENGTH,
        threads=1,
    )
    assert relative(all_logits(decoder, tokens), wanted) < most
    decoder.close()


def test_sources_of_every_type_give_the_same_packed_weights() -> None:
    model = make_model("llama").bfloat16().float()
    spec, tensors = spec_of(model), tensors_of(model)
    exact_in_half = {k: v.astype(np.float16).astype(np.float32) for k, v in tensors.items()}
    half = {k: v.astype(np.float16) for k, v in tensors.items()}
    tokens = tokens_of(spec.vocab_size, 20)

    def logits(source: dict[str, np.ndarray]) -> np.ndarray:
        decoder = CpuDecoder(spec, source, weight_format="bf16", slot_tokens=32, threads=1)
        return all_logits(decoder, tokens)

    assert np.array_equal(logits(tensors), logits(tensors_of(model, bf16=True)))
    assert np.array_equal(logits(exact_in_half), logits(half))
