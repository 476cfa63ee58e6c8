"""Small random checkpoints of the families the kernels serve, as transformers builds them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from atlasd_kernels.spec import DecoderSpec
from transformers import PreTrainedModel

from tests.random_models import build

BASE: dict[str, Any] = {
    "vocab_size": 301,
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 200,
    "max_position_embeddings": 512,
    "attn_implementation": "eager",
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"head_dim": 32}),
    "qwen2": (
        "qwen2",
        {"tie_word_embeddings": True, "hidden_size": 128, "rope_theta": 1e6},
    ),
    "qwen3": (
        "qwen3",
        {"head_dim": 48, "tie_word_embeddings": True, "num_attention_heads": 10},
    ),
    "mistral": (
        "mistral",
        {"sliding_window": 37, "head_dim": 64, "num_key_value_heads": 1},
    ),
}


def make_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A random float32 model whose logits differ enough from token to token to test with."""
    kind, options = FAMILIES[family]

    def spread(name: str, parameter: torch.Tensor) -> float:
        return 0.2 if name.endswith("bias") else 1.5 / parameter.shape[-1] ** 0.5

    return build(kind, {**BASE, **options}, spread, seed)


def spec_of(model: PreTrainedModel) -> DecoderSpec:
    c: Any = model.config
    names = dict(model.named_parameters())
    window = getattr(c, "sliding_window", None) if c.model_type == "mistral" else None
    rotary: Any = model.model.rotary_emb
    return DecoderSpec(
        vocab_size=c.vocab_size,
        hidden_size=c.hidden_size,
        layers=c.num_hidden_layers,
        heads=c.num_attention_heads,
        kv_heads=c.num_key_value_heads,
        head_dim=getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads,
        intermediate_size=c.intermediate_size,
        rms_eps=c.rms_norm_eps,
        inv_freq=rotary.inv_freq.float().numpy().copy(),
        attention_factor=rotary.attention_scaling,
        tied=c.tie_word_embeddings,
        qkv_bias="model.layers.0.self_attn.q_proj.bias" in names,
        qk_norm="model.layers.0.self_attn.q_norm.weight" in names,
        sliding_window=(window,) * c.num_hidden_layers,
    )


def tensors_of(model: PreTrainedModel, *, bf16: bool = False) -> dict[str, np.ndarray]:
    """The checkpoint's tensors: float32, or bfloat16 as uint16."""
    if not bf16:
        return {name: p.detach().numpy() for name, p in model.named_parameters()}
    return {
        name: p.detach().bfloat16().view(torch.uint16).numpy()
        for name, p in model.named_parameters()
    }


def reference_logits(model: PreTrainedModel, tokens: list[int]) -> np.ndarray:
    """transformers' logits [tokens, vocab] of one sequence."""
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([tokens])).logits[0]
    return logits.float().numpy()
