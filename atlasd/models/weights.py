"""Weights as a mapping from Hugging Face's names to arrays, read when asked for.

safetensors are mapped into memory, so nothing is copied until a decoder copies it. bfloat16, which
numpy does not know, is handed out raw as uint16.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atlasd.errors import ModelError
from atlasd.models.config import ModelConfig
from atlasd.models.gguf_file import read_gguf
from atlasd.models.gguf_weights import GgufWeights
from atlasd.models.locate import ModelFiles

Array = npt.NDArray[Any]

DTYPES: dict[str, type[np.generic]] = {
    "F32": np.float32,
    "F16": np.float16,
    "BF16": np.uint16,
    "F64": np.float64,
}


@dataclass(frozen=True)
class _Entry:
    file: Path
    dtype: type[np.generic]
    shape: tuple[int, ...]
    offset: int


class SafetensorsWeights(Mapping[str, Array]):
    """The tensors of one or more safetensors files (a header of JSON, then raw data).

    Arrays are copy-on-write maps of the file: float32, float16, or bfloat16 as uint16.
    """

    def __init__(self, files: list[Path]) -> None:
        self._entries = {name: entry for file in files for name, entry in _read_header(file)}
        self._maps: dict[Path, np.memmap[Any, Any]] = {}

    def __getitem__(self, name: str) -> Array:
        entry = self._entries[name]
        if entry.file not in self._maps:
            self._maps[entry.file] = np.memmap(entry.file, np.uint8, mode="c")
        size = math.prod(entry.shape) * np.dtype(entry.dtype).itemsize
        data = self._maps[entry.file][entry.offset : entry.offset + size]
        return data.view(np.ndarray).view(entry.dtype).reshape(entry.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._entries[name].shape


Weights = SafetensorsWeights | GgufWeights


def open_weights(files: ModelFiles, config: ModelConfig) -> Weights:
    """The weights of a model, checked to be complete and of the right shapes; nothing is read yet.

    Raises ModelError naming the first tensor that is missing or has the wrong shape.
    """
    weights: Weights
    if files.kind == "gguf":
        weights = GgufWeights(read_gguf(files.path), config)
    else:
        weights = SafetensorsWeights(files.weight_files)
    for name, shape in expected_tensors(config).items():
        if name not in weights:
            raise ModelError(f"{files.name} lacks the tensor {name}.", "Download it again.")
        if weights.shape(name) != shape:
            raise ModelError(
                f"In {files.name}, {name} has shape {list(weights.shape(name))} where the"
                f" configuration says {list(shape)}.",
                "The configuration and the weights are of different models.",
            )
    return weights


def expected_tensors(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a model of this configuration has."""
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer: dict[str, tuple[int, ...]] = {
        "input_layernorm.weight": (hidden,),
        "self_attn.q_proj.weight": (q, hidden),
        "self_attn.k_proj.weight": (kv, hidden),
        "self_attn.v_proj.weight": (kv, hidden),
        "self_attn.o_proj.weight": (hidden, q),
        "post_attention_layernorm.weight": (hidden,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
    }
    if config.qkv_bias:
        layer |= {
            "self_attn.q_proj.bias": (q,),
            "self_attn.k_proj.bias": (kv,),
            "self_attn.v_proj.bias": (kv,),
        }
    if config.qk_norm:
        layer |= {
            "self_attn.q_norm.weight": (config.head_dim,),
            "self_attn.k_norm.weight": (config.head_dim,),
        }
    names = {
        "model.embed_tokens.weight": (config.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.tied:
        names["lm_head.weight"] = (config.vocab_size, hidden)
    for number in range(config.layers):
        names |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return names


def float32(array: Array) -> npt.NDArray[np.float32]:
    """An array as handed out here, as float32."""
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32, copy=False)


def _read_header(file: Path) -> list[tuple[str, _Entry]]:
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = file.stat().st_size
            if not 2 <= length <= size - 8:
                raise ValueError("the header runs past the end of the file")
            header = json.loads(stream.read(length))
        entries = []
        for name, about in header.items():
            if name == "__metadata__":
                continue
            begin, end = about["data_offsets"]
            dtype = DTYPES.get(about["dtype"])
            if dtype is None:
                raise ModelError(
                    f"{file.name} holds {name} as {about['dtype']}, which is not read.",
                    "Use a version in float32, float16 or bfloat16, or a GGUF file.",
                )
            shape = tuple(int(length) for length in about["shape"])
            if 8 + length + end > size:
                raise ValueError("it is cut off")
            if end - begin != math.prod(shape) * np.dtype(dtype).itemsize or begin < 0:
                raise ValueError(f"{name} has the wrong size")
            entries.append((name, _Entry(file, dtype, shape, 8 + length + begin)))
        return entries
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ModelError(
            f"{file} is not a readable safetensors file ({error}).", "Download it again."
        ) from None
