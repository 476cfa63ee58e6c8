"""The shape of a model, from config.json or GGUF metadata, and what is refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atlasd.errors import ModelError
from atlasd.models.gguf_file import GgufFile, read_gguf
from atlasd.models.locate import ModelFiles
from atlasd.models.rope import ROPE_TYPES, Rope, rope_from_config, rope_from_gguf

FAMILIES = {
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "MistralForCausalLM": "mistral",
}
GGUF_FAMILIES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
WHAT_WORKS = (
    f"What works: {', '.join(FAMILIES)} with RoPE {', '.join(ROPE_TYPES)}, as safetensors or GGUF."
)


@dataclass(frozen=True)
class ModelConfig:
    """A decoder of the Llama skeleton. Families differ only in these values."""

    family: str
    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_eps: float
    rope: Rope
    max_positions: int
    """Positions the model was made for."""

    tied: bool
    """The head is the embedding matrix."""

    qkv_bias: bool
    qk_norm: bool
    sliding_window: tuple[int | None, ...]
    """Per layer, the positions a row sees, itself included; None: all."""

    dtype: str
    """What the weights are kept in: ``float32``, ``bfloat16``, ``float16``; quantised GGUF:
    ``quantised``."""

    @property
    def parameters(self) -> int:
        """Weights in all, a tied head counted once."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden_size * (2 * q + 2 * kv) + (q + 2 * kv) * self.qkv_bias
        norms = 2 * self.hidden_size + 2 * self.head_dim * self.qk_norm
        layer = attention + 3 * self.hidden_size * self.intermediate_size + norms
        embedding = self.vocab_size * self.hidden_size * (1 if self.tied else 2)
        return self.layers * layer + embedding + self.hidden_size


def read_config(files: ModelFiles) -> ModelConfig:
    """The configuration of a model. Raises ModelError, with the list of what works, for others."""
    if files.kind == "gguf":
        return config_from_gguf(read_gguf(files.path))
    return config_from_json(files.name, files.config)


def refuse(name: str, what: str) -> ModelError:
    """The error for a model outside of what is served."""
    return ModelError(f"{name} {what}.", WHAT_WORKS)


def config_from_json(name: str, config: Mapping[str, Any]) -> ModelConfig:
    """From a Hugging Face config.json, of transformers 4 or 5."""
    architectures = config.get("architectures") or [f"model_type {config.get('model_type')}"]
    family = FAMILIES.get(architectures[0])
    if family is None:
        raise refuse(name, f"has the architecture {architectures[0]}, which is not served")
    if config.get("quantization_config"):
        method = config["quantization_config"].get("quant_method", "unknown")
        raise refuse(name, f"is quantised ({method}), which is not read")
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise refuse(name, f"has the activation {config['hidden_act']}, which is not served")
    for flag in ("attention_bias", "mlp_bias"):
        if config.get(flag):
            raise refuse(name, f"has {flag}, which is not served")
    try:
        return _from_json(name, config, family)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelError(
            f"The configuration of {name} is incomplete ({error}).", "Download it again."
        ) from None


def _from_json(name: str, config: Mapping[str, Any], family: str) -> ModelConfig:
    heads, hidden = int(config["num_attention_heads"]), int(config["hidden_size"])
    layers = int(config["num_hidden_layers"])
    head_dim = int(config.get("head_dim") or (128 if family == "qwen3" else hidden // heads))
    rope, reach = rope_from_config(name, config, head_dim)
    return ModelConfig(
        family=family,
        vocab_size=int(config["vocab_size"]),
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=head_dim,
        intermediate_size=int(config["intermediate_size"]),
        rms_eps=float(config.get("rms_norm_eps", 1e-6)),
        rope=rope,
        max_positions=reach,
        tied=bool(config.get("tie_word_embeddings", False)),
        qkv_bias=family == "qwen2",
        qk_norm=family == "qwen3",
        sliding_window=_windows(config, family, layers),
        dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
    )


def _windows(config: Mapping[str, Any], family: str, layers: int) -> tuple[int | None, ...]:
    window = config.get("sliding_window")
    if family == "mistral":
        return (window,) * layers
    if family == "llama" or not config.get("use_sliding_window") or window is None:
        return (None,) * layers
    kinds = config.get("layer_types")
    if kinds is None:
        first = int(config.get("max_window_layers", 28))
        kinds = ["sliding_attention" if n >= first else "full_attention" for n in range(layers)]
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)


def config_from_gguf(file: GgufFile) -> ModelConfig:
    """From GGUF metadata; flags that GGUF does not have are read off the tensors present."""
    name = file.path.name
    family = GGUF_FAMILIES.get(file.architecture)
    if family is None:
        raise refuse(name, f"has the architecture {file.architecture!r}, which is not served")
    if file.value("expert_count"):
        raise refuse(name, "is a mixture of experts, which is not served")
    if "token_embd.weight" not in file.tensors:
        raise ModelError(f"{name} holds a vocabulary but no weights.", "Choose another file.")
    try:
        return _from_gguf(file, family)
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise ModelError(
            f"The metadata of {name} is incomplete ({error}).", "Convert it again."
        ) from None


def _from_gguf(file: GgufFile, family: str) -> ModelConfig:
    hidden, layers = int(file.value("embedding_length")), int(file.value("block_count"))
    heads = int(file.value("attention.head_count"))
    head_dim = int(file.value("attention.key_length") or hidden // heads)
    window = file.value("attention.sliding_window")
    kinds = {tensor.type for tensor in file.tensors.values() if len(tensor.shape) == 2}
    names = {0: "float32", 1: "float16", 30: "bfloat16"}
    return ModelConfig(
        family=family,
        vocab_size=file.tensors["token_embd.weight"].shape[0],
        hidden_size=hidden,
        layers=layers,
        heads=heads,
        kv_heads=int(file.value("attention.head_count_kv") or heads),
        head_dim=head_dim,
        intermediate_size=int(file.value("feed_forward_length")),
        rms_eps=float(file.value("attention.layer_norm_rms_epsilon", 1e-6)),
        rope=rope_from_gguf(file, head_dim),
        max_positions=int(file.value("context_length", 2048)),
        tied="output.weight" not in file.tensors,
        qkv_bias="blk.0.attn_q.bias" in file.tensors,
        qk_norm="blk.0.attn_q_norm.weight" in file.tensors,
        sliding_window=(int(window) if window else None,) * layers,
        dtype=names.get(kinds.pop(), "quantised") if len(kinds) == 1 else "quantised",
    )
