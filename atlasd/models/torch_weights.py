"""A checkpoint's weights as torch keeps them: packed by layer and turned for fast small matmuls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atlasd.models.config import ModelConfig
from atlasd.models.locate import Progress

Array = npt.NDArray[Any]

COPIED_HEAD_BYTES = 128 << 20
"""A tied head up to this size is also kept turned, which makes it faster."""


@dataclass(frozen=True)
class Layer:
    """The weights of a layer. Matrices lie as [in, out]: at 8 rows that is twice as fast on a CPU
    as [out, in]. In q and k, the two halves that RoPE turns together lie side by side."""

    attention_norm: Tensor
    qkv: Tensor
    qkv_bias: Tensor | None
    q_norm: Tensor | None
    k_norm: Tensor | None
    output: Tensor
    mlp_norm: Tensor
    gate_up: Tensor
    down: Tensor


@dataclass(frozen=True)
class ModelWeights:
    """All weights of a decoder."""

    embedding: Tensor
    """[vocab, hidden]"""

    head: Tensor | None
    """[hidden, vocab]; None: the embedding serves as it lies."""

    norm: Tensor
    layers: list[Layer]

    def nbytes(self) -> int:
        """Bytes held."""
        tensors = [self.embedding, self.norm, self.head]
        for layer in self.layers:
            tensors += vars(layer).values()
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)


class _Packer:
    """Copies arrays into tensors of the wanted type, on the wanted device."""

    def __init__(
        self,
        weights: Mapping[str, Array],
        config: ModelConfig,
        precision: torch.dtype,
        dtype: torch.dtype,
        device: str,
    ) -> None:
        self.weights, self.config = weights, config
        self.precision, self.dtype, self.device = precision, dtype, device

    def given(self, name: str) -> Tensor:
        """A weight as the checkpoint has it, rounded to the precision asked for."""
        return as_tensor(self.weights[name]).to(self.precision)

    def vector(self, name: str, pairs: int = 0) -> Tensor:
        """A vector, in rotation pairs if it belongs to that many heads."""
        given = self.given(name)
        return (rotation_pairs(given, pairs) if pairs else given).to(self.device, self.dtype)

    def matrix(self, names: list[str], pairs: tuple[int, ...] = ()) -> Tensor:
        """Matrices [out, in] side by side as one [in, sum of outs]; ``pairs`` as in ``vector``."""
        given = [self.given(name) for name in names]
        for number, heads in enumerate(pairs):
            given[number] = rotation_pairs(given[number], heads)
        # Converted first: torch turns a matrix fast only within one type.
        packed = torch.cat(given).to(self.device, self.dtype)
        return packed.t().contiguous()

    def layer(self, number: int) -> Layer:
        prefix, config = f"model.layers.{number}.", self.config
        projections = [f"{prefix}self_attn.{name}_proj" for name in "qkv"]
        heads = (config.heads, config.kv_heads)
        bias = None
        if config.qkv_bias:
            parts = [
                self.vector(f"{name}.bias", pairs)
                for name, pairs in zip(projections, (*heads, 0), strict=True)
            ]
            bias = torch.cat(parts)
        norms: dict[str, Tensor | None] = {"q_norm": None, "k_norm": None}
        if config.qk_norm:
            norms = {name: self.vector(f"{prefix}self_attn.{name}.weight", 1) for name in norms}
        return Layer(
            attention_norm=self.vector(prefix + "input_layernorm.weight"),
            qkv=self.matrix([f"{name}.weight" for name in projections], heads),
            qkv_bias=bias,
            **norms,
            output=self.matrix([prefix + "self_attn.o_proj.weight"]),
            mlp_norm=self.vector(prefix + "post_attention_layernorm.weight"),
            gate_up=self.matrix([f"{prefix}mlp.{name}_proj.weight" for name in ("gate", "up")]),
            down=self.matrix([prefix + "mlp.down_proj.weight"]),
        )


def pack_weights(
    weights: Mapping[str, Array],
    config: ModelConfig,
    *,
    precision: torch.dtype,
    dtype: torch.dtype,
    device: str,
    progress: Progress | None = None,
) -> ModelWeights:
    """Copy a checkpoint into tensors of ``dtype``, one layer after the other. The values are
    rounded to ``precision`` first, which may be coarser than what is computed in."""
    packer = _Packer(weights, config, precision, dtype, device)
    embedding = packer.given("model.embed_tokens.weight").to(device, dtype, copy=True)
    if not config.tied:
        head = packer.matrix(["lm_head.weight"])
    elif embedding.nbytes <= COPIED_HEAD_BYTES:
        head = packer.matrix(["model.embed_tokens.weight"])
    else:
        head = None
    layers = []
    for number in range(config.layers):
        if progress:
            progress("reading weights", number / config.layers)
        layers.append(packer.layer(number))
    return ModelWeights(embedding, head, packer.vector("model.norm.weight"), layers)


def packed_bytes(config: ModelConfig, item_bytes: int) -> int:
    """What ``pack_weights`` will hold, in bytes."""
    embedding = config.vocab_size * config.hidden_size * item_bytes
    copied = embedding if config.tied and embedding <= COPIED_HEAD_BYTES else 0
    return config.parameters * item_bytes + copied


def rotation_pairs(tensor: Tensor, heads: int) -> Tensor:
    """Rows (i, i + head_dim / 2) of every head side by side: RoPE is then one complex product."""
    halves = tensor.view(heads, 2, -1, *tensor.shape[1:])
    return halves.transpose(1, 2).reshape(tensor.shape)


def as_tensor(array: Array) -> Tensor:
    """An array as ``weights`` hands it out, as a tensor that shares its memory."""
    if array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)
