"""Shapes of Qwen2 models that benchmarks fill with random weights: time does not depend on the
values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from atlasd.models.config import ModelConfig, config_from_json


@dataclass(frozen=True)
class Shape:
    """What a step's time depends on."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int
    tied: bool = True

    def as_json(self) -> dict[str, Any]:
        """What a checkpoint's config.json says; transformers' ``Qwen2Config`` takes it, too. No
        token ends a text."""
        return {
            "architectures": ["Qwen2ForCausalLM"],
            "num_hidden_layers": self.layers,
            "hidden_size": self.hidden,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "intermediate_size": self.intermediate,
            "vocab_size": self.vocabulary,
            "tie_word_embeddings": self.tied,
            "max_position_embeddings": 32_768 + 512,
            "rope_theta": 1e6,
            "torch_dtype": "bfloat16",
            "bos_token_id": None,
            "eos_token_id": None,
        }


SHAPES = {
    "14M": Shape(5, 448, 7, 1, 1152, 8192),
    "20M": Shape(8, 512, 8, 2, 1024, 8192),
    "0.5B": Shape(24, 896, 14, 2, 4864, 151_936),
    "1.5B": Shape(28, 1536, 12, 2, 8960, 151_936),
    "7B": Shape(28, 3584, 28, 4, 18944, 152_064, tied=False),
}
"""From 0.5B on those of Qwen2.5-Coder."""


def shape_config(name: str) -> ModelConfig:
    """The configuration of a shape."""
    return config_from_json(f"{name} shape", SHAPES[name].as_json())
