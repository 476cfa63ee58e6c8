"""Random checkpoints of every served configuration, as transformers builds and saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCABULARY = 307
BASE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 96,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "max_position_embeddings": 2048,
    "head_dim": 16,
    "attn_implementation": "eager",
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 512,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 4.0}

FAMILIES: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "llama 3": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LLAMA3}),
    "llama 3 tied": (
        LlamaConfig,
        LlamaForCausalLM,
        {"rope_parameters": LLAMA3, "tie_word_embeddings": True},
    ),
    "llama linear": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": LINEAR}),
    "llama dynamic": (LlamaConfig, LlamaForCausalLM, {"rope_parameters": DYNAMIC}),
    "llama without groups": (LlamaConfig, LlamaForCausalLM, {"num_key_value_heads": 6}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {}),
    "qwen2 tied": (
        Qwen2Config,
        Qwen2ForCausalLM,
        {"tie_word_embeddings": True, "num_key_value_heads": 1},
    ),
    "qwen2 yarn": (Qwen2Config, Qwen2ForCausalLM, {"rope_parameters": YARN}),
    "qwen2 sliding": (
        Qwen2Config,
        Qwen2ForCausalLM,
        {"use_sliding_window": True, "sliding_window": 50, "max_window_layers": 1},
    ),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 32}),
    "qwen3 tied": (Qwen3Config, Qwen3ForCausalLM, {"tie_word_embeddings": True}),
    "mistral": (MistralConfig, MistralForCausalLM, {"sliding_window": 70}),
    "mistral without window": (MistralConfig, MistralForCausalLM, {"sliding_window": None}),
}


def random_model(family: str, **changes: Any) -> PreTrainedModel:
    """A float32 model whose weights are large enough for positions and neighbours to matter."""
    torch.manual_seed(0)
    config_class, model_class, options = FAMILIES[family]
    model: PreTrainedModel = model_class(config_class(**{**BASE, **options, **changes})).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(std=0.15)
    return model


def save(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    """Write a model as its users would."""
    model.save_pretrained(folder, **options)
    return folder


def random_tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, count).astype(np.int32)
