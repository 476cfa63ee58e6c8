"""A checkpoint's weights as the GPU kernels read them: quantised at load, layer by layer.

One matrix at a time goes to the device in its own precision, is packed there and freed, so memory
never holds more than the packed model and one matrix. ``quant_cache`` keeps the result on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from atlasd_kernels.gpu.formats import (
    Format,
    PackedMatrix,
    interleave,
    packed_bytes,
    quantise,
    stack,
)
from torch import Tensor

from atlasd.models.config import ModelConfig
from atlasd.models.locate import Progress
from atlasd.models.torch_weights import as_tensor

Array = npt.NDArray[Any]
Tensors = Mapping[str, Array]

HEAD_FORMATS: dict[Format, Format] = {"int4": "int8", "nvfp4": "int8"}
"""The head decides every token: four-bit models keep it in eight bits."""

BY_QUALITY: tuple[Format, ...] = ("bf16", "int8", "nvfp4", "int4")
"""What ``auto`` tries, best first. FP8 is as large as INT8 and errs more on bell-shaped rows."""


@dataclass(frozen=True)
class QuantLayer:
    """The weights of a layer. Gains and biases are float32."""

    attention_gain: Tensor
    qkv: PackedMatrix
    qkv_bias: Tensor | None
    qk_gains: tuple[Tensor, Tensor] | None
    output: PackedMatrix
    mlp_gain: Tensor
    gate_up: PackedMatrix
    """Rows of gate and up in turn."""

    down: PackedMatrix


@dataclass(frozen=True)
class QuantModel:
    """All weights of a decoder."""

    embedding: Tensor
    head: PackedMatrix
    gain: Tensor
    layers: list[QuantLayer]

    def nbytes(self) -> int:
        """Bytes held; a head that is the embedding counts once."""
        shared = self.head.data.data_ptr() == self.embedding.data_ptr()
        total = self.embedding.nbytes * (not shared) + self.head.nbytes + self.gain.nbytes
        for layer in self.layers:
            total += sum(m.nbytes for m in (layer.qkv, layer.output, layer.gate_up, layer.down))
            floats = [layer.attention_gain, layer.mlp_gain, layer.qkv_bias, *(layer.qk_gains or ())]
            total += sum(t.nbytes for t in floats if t is not None)
        return total


def model_bytes(config: ModelConfig, kind: Format) -> int:
    """What a packed model takes, in bytes, before anything is read."""
    hidden, inner = config.hidden_size, config.intermediate_size
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    layer = packed_bytes(q + 2 * kv, hidden, kind) + packed_bytes(hidden, q, kind)
    layer += packed_bytes(2 * inner, hidden, kind) + packed_bytes(hidden, inner, kind)
    floats = 4 * (2 * hidden + (q + 2 * kv) * config.qkv_bias + 2 * config.head_dim)
    embedding = config.vocab_size * hidden * (4 if kind == "fp32" else 2)
    head_kind = HEAD_FORMATS.get(kind, kind)
    shared = config.tied and kind in ("fp32", "bf16")
    head = 4 * config.vocab_size  # its channel scales, where it shares the embedding's memory
    if not shared:
        head = packed_bytes(config.vocab_size, hidden, head_kind)
    return config.layers * (layer + floats) + embedding + head + 4 * hidden


def choose_format(config: ModelConfig, budget: int, slot_bytes: int) -> Format:
    """The best format of which the weights and ``slot_bytes`` fit into ``budget`` bytes; the
    smallest if none does."""
    for kind in BY_QUALITY:
        if model_bytes(config, kind) + slot_bytes <= budget:
            return kind
    return BY_QUALITY[-1]


class Packer:
    """Packs the matrices of a checkpoint onto a device."""

    def __init__(
        self, weights: Tensors, config: ModelConfig, kind: Format, device: torch.device
    ) -> None:
        self.weights = weights
        self.config = config
        self.kind = kind
        self.device = device

    def embedding(self) -> Tensor:
        """The embedding, float32 or bf16."""
        dtype = torch.float32 if self.kind == "fp32" else torch.bfloat16
        return self._read("model.embed_tokens.weight").to(dtype)

    def head(self, embedding: Tensor) -> PackedMatrix:
        """The head; where it is the embedding and is not quantised, it shares its memory."""
        kind = HEAD_FORMATS.get(self.kind, self.kind)
        if self.config.tied:
            return quantise(embedding, kind)
        return quantise(self._read("lm_head.weight"), kind)

    def gain(self, name: str) -> Tensor:
        """A vector, float32."""
        return self._read(name).float()

    def layers(self, progress: Progress | None) -> Iterator[QuantLayer]:
        """Pack one layer after the other."""
        for number in range(self.config.layers):
            if progress:
                progress(f"packing weights ({self.kind})", number / self.config.layers)
            yield self._layer(number)

    def _layer(self, number: int) -> QuantLayer:
        at = f"model.layers.{number}."
        attention = at + "self_attn."
        bias = gains = None
        if self.config.qkv_bias:
            bias = torch.cat([self.gain(f"{attention}{n}_proj.bias") for n in "qkv"])
        if self.config.qk_norm:
            gains = (self.gain(f"{attention}q_norm.weight"), self.gain(f"{attention}k_norm.weight"))
        both = interleave(
            self._read(f"{at}mlp.gate_proj.weight"), self._read(f"{at}mlp.up_proj.weight")
        )
        return QuantLayer(
            attention_gain=self.gain(f"{at}input_layernorm.weight"),
            qkv=stack([self._matrix(f"{attention}{n}_proj.weight") for n in "qkv"]),
            qkv_bias=bias,
            qk_gains=gains,
            output=self._matrix(f"{attention}o_proj.weight"),
            mlp_gain=self.gain(f"{at}post_attention_layernorm.weight"),
            gate_up=quantise(both, self.kind),
            down=self._matrix(f"{at}mlp.down_proj.weight"),
        )

    def _matrix(self, name: str) -> PackedMatrix:
        return quantise(self._read(name), self.kind)

    def _read(self, name: str) -> Tensor:
        return as_tensor(np.ascontiguousarray(self.weights[name])).to(self.device)


def quantise_model(
    weights: Tensors,
    config: ModelConfig,
    kind: Format,
    device: torch.device,
    progress: Progress | None = None,
) -> QuantModel:
    """Pack a whole checkpoint."""
    packer = Packer(weights, config, kind, device)
    layers = list(packer.layers(progress))
    embedding = packer.embedding()
    return QuantModel(embedding, packer.head(embedding), packer.gain("model.norm.weight"), layers)
