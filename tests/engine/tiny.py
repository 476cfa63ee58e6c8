"""A tiny random checkpoint in the Qwen2 layout, written without transformers (which takes long
to import)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, INTERMEDIATE = 512, 64, 2, 4, 2, 128


def tiny_checkpoint(
    folder: Path, *, dtype: str = "float32", positions: int = 512, seed: int = 0
) -> Path:
    """Write a random model of a few hundred kilobytes and return its folder."""
    draw = np.random.default_rng(seed)
    head = HIDDEN // HEADS

    def random(*shape: int) -> np.ndarray:
        return draw.normal(0, 1.5 / np.sqrt(shape[-1]), shape).astype(np.float32)

    tensors = {
        "model.embed_tokens.weight": random(VOCAB, HIDDEN) * 4,
        "model.norm.weight": np.ones(HIDDEN, np.float32),
    }
    for layer in range(LAYERS):
        name = f"model.layers.{layer}."
        tensors |= {
            name + "input_layernorm.weight": np.ones(HIDDEN, np.float32),
            name + "post_attention_layernorm.weight": np.ones(HIDDEN, np.float32),
            name + "self_attn.q_proj.weight": random(HEADS * head, HIDDEN),
            name + "self_attn.k_proj.weight": random(KV_HEADS * head, HIDDEN),
            name + "self_attn.v_proj.weight": random(KV_HEADS * head, HIDDEN),
            name + "self_attn.q_proj.bias": random(HEADS * head),
            name + "self_attn.k_proj.bias": random(KV_HEADS * head),
            name + "self_attn.v_proj.bias": random(KV_HEADS * head),
            name + "self_attn.o_proj.weight": random(HIDDEN, HEADS * head),
            name + "mlp.gate_proj.weight": random(INTERMEDIATE, HIDDEN),
            name + "mlp.up_proj.weight": random(INTERMEDIATE, HIDDEN),
            name + "mlp.down_proj.weight": random(HIDDEN, INTERMEDIATE),
        }
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": positions,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
        "hidden_act": "silu",
        "torch_dtype": dtype,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder
