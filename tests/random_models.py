"""Random transformers models of the families that are served, small and in float32."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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

CLASSES: dict[str, tuple[type[Any], type[Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
}


def build(
    kind: str, options: dict[str, Any], spread: Callable[[str, torch.Tensor], float], seed: int = 0
) -> PreTrainedModel:
    """A model of a family with these options; ``spread`` gives each parameter's deviation, except
    of norms, which lie around 1."""
    torch.manual_seed(seed)
    config_class, model_class = CLASSES[kind]
    model: PreTrainedModel = model_class(config_class(**options)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.5, 1.5)
            else:
                parameter.normal_(0, spread(name, parameter))
    return model
