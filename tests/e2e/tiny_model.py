"""A checkpoint with random weights in the Qwen2 layout and one token per byte, made without torch:
small enough to be started by every test that needs a whole daemon."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.served import CHAT, byte_tokenizer

HIDDEN, LAYERS, HEADS, KV_HEADS, MIDDLE = 64, 2, 4, 2, 128


def write_tiny_model(folder: Path) -> Path:
    """Write the checkpoint; returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_tokenizer()
    (folder / "tokenizer.json").write_text(tokenizer._inner.to_str())
    settings = {"eos_token": "<|endoftext|>", "chat_template": CHAT}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    config = {
        "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "dtype": "float32",
        "vocab_size": tokenizer.vocab_size, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "intermediate_size": MIDDLE, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": True, "hidden_act": "silu",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    weights = _weights(tokenizer.vocab_size)
    # Embeddings are the head too: what is nearly zero is never the likeliest, so the text is ASCII.
    for token in range(tokenizer.vocab_size):
        text = tokenizer.token_bytes(token)
        if not (text.isascii() and text.decode().isprintable() and text):
            weights["model.embed_tokens.weight"][token] *= 0.01
    save_file(weights, folder / "model.safetensors")
    return folder


def _weights(vocab: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(7)
    head, kv = HIDDEN // HEADS, KV_HEADS * (HIDDEN // HEADS)

    def matrix(*shape: int) -> np.ndarray:
        return random.normal(0, 0.08, shape).astype(np.float32)

    made = {"model.embed_tokens.weight": matrix(vocab, HIDDEN),
            "model.norm.weight": np.ones(HIDDEN, np.float32)}  # fmt: skip
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        sizes = {"q": HEADS * head, "k": kv, "v": kv}
        for name, size in sizes.items():
            made[f"{at}.self_attn.{name}_proj.weight"] = matrix(size, HIDDEN)
            made[f"{at}.self_attn.{name}_proj.bias"] = matrix(size)
        made[f"{at}.self_attn.o_proj.weight"] = matrix(HIDDEN, HEADS * head)
        made[f"{at}.mlp.gate_proj.weight"] = matrix(MIDDLE, HIDDEN)
        made[f"{at}.mlp.up_proj.weight"] = matrix(MIDDLE, HIDDEN)
        made[f"{at}.mlp.down_proj.weight"] = matrix(HIDDEN, MIDDLE)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            made[f"{at}.{norm}.weight"] = np.ones(HIDDEN, np.float32)
    return made
