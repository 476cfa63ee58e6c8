"""The weights of a GGUF file under Hugging Face's names, dequantised one tensor at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from atlasd.errors import ModelError
from atlasd.models.config import ModelConfig
from atlasd.models.gguf_file import GgufFile

Array = npt.NDArray[Any]

LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""GGUF's name within a layer -> Hugging Face's."""

OUTER_TENSORS = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
GGUF_F32, GGUF_F16, GGUF_BF16 = 0, 1, 30


class GgufWeights(Mapping[str, Array]):
    """The tensors of a GGUF file under Hugging Face's names, dequantised to float32 where they are
    quantised; float32, float16 and bfloat16 (as uint16) are maps of the file."""

    def __init__(self, file: GgufFile, config: ModelConfig) -> None:
        self._file = file
        self._config = config
        self._map = np.memmap(file.path, np.uint8, mode="c")
        self._names = {
            name: stored for stored in file.tensors if (name := _huggingface_name(stored))
        }

    def __getitem__(self, name: str) -> Array:
        array = self._stored(self._names[name])
        if self._file.architecture == "llama" and ".q_proj." in name:
            return _rotated_halves(array, self._config.heads)
        if self._file.architecture == "llama" and ".k_proj." in name:
            return _rotated_halves(array, self._config.kv_heads)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._file.tensors[self._names[name]].shape

    def _stored(self, name: str) -> Array:
        tensor = self._file.tensors[name]
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
        from gguf.quants import dequantize

        try:
            kind = GGMLQuantizationType(tensor.type)
            block, block_bytes = GGML_QUANT_SIZES[kind]
            count = math.prod(tensor.shape)
            data = self._map[tensor.offset : tensor.offset + count // block * block_bytes]
            if data.size != count // block * block_bytes:
                raise ModelError(
                    f"{self._file.path.name} is cut off within {name}.", "Download it again."
                )
            raw = data.view(np.ndarray)
            if plain := {GGUF_F32: np.float32, GGUF_F16: np.float16, GGUF_BF16: np.uint16}.get(
                tensor.type
            ):
                return raw.view(plain).reshape(tensor.shape)
            rows = raw.reshape(*tensor.shape[:-1], -1)
            return np.asarray(dequantize(rows, kind), dtype=np.float32).reshape(tensor.shape)
        # The gguf package raises NotImplementedError for a type that it knows by name only.
        except (ValueError, KeyError, NotImplementedError):
            raise ModelError(
                f"{self._file.path.name} holds {name} in a format that is not read"
                f" (type {tensor.type}).",
                "Use another quantisation of the model, Q8_0 or Q4_K_M for example.",
            ) from None


def _huggingface_name(stored: str) -> str | None:
    if outer := OUTER_TENSORS.get(stored):
        return outer
    parts = stored.split(".")
    if len(parts) == 4 and parts[0] == "blk" and (inner := LAYER_TENSORS.get(parts[2])):
        return f"model.layers.{parts[1]}.{inner}.{parts[3]}"
    return None


def _rotated_halves(array: Array, heads: int) -> Array:
    """Undo llama.cpp's order of q and k rows for Llama (pairs side by side) to halves apart."""
    rows = array.reshape(heads, -1, 2, *array.shape[1:])
    return rows.swapaxes(1, 2).reshape(array.shape)
