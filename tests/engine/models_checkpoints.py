"""Random checkpoints of every served configuration, as transformers builds and saves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from tests.random_models import build

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

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama 3": ("llama", {"rope_parameters": LLAMA3}),
    "llama 3 tied": (
        "llama",
        {"rope_parameters": LLAMA3, "tie_word_embeddings": True},
    ),
    "llama linear": ("llama", {"rope_parameters": LINEAR}),
    "llama dynamic": ("llama", {"rope_parameters": DYNAMIC}),
    "llama without groups": ("llama", {"num_key_value_heads": 6}),
    "qwen2": ("qwen2", {}),
    "qwen2 tied": (
        "qwen2",
        {"tie_word_embeddings": True, "num_key_value_heads": 1},
    ),
    "qwen2 yarn": ("qwen2", {"rope_parameters": YARN}),
    "qwen2 sliding": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 50, "max_window_layers": 1},
    ),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "qwen3 tied": ("qwen3", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": 70}),
    "mistral without window": ("mistral", {"sliding_window": None}),
}


def random_model(family: str, **changes: Any) -> PreTrainedModel:
    """A float32 model whose weights are large enough for positions and neighbours to matter."""
    kind, options = FAMILIES[family]
    return build(kind, {**BASE, **options, **changes}, lambda name, parameter: 0.15)


def save(model: PreTrainedModel, folder: Path, **options: Any) -> Path:
    """Write a model as its users would."""
    model.save_pretrained(folder, **options)
    return folder


def random_tokens(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, VOCABULARY, count).astype(np.int32)
