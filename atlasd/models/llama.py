"""The decoder of the Llama skeleton in torch: Llama, Qwen2, Qwen3 and Mistral.

Exactness with library matmuls rests on fixed shapes. Every row goes through a *pass* of a fixed
number of rows: decode rows through passes of ``TILE``, prefill through passes of one chunk in which
rows lie at their absolute positions; what is missing is padded. The passes of a call run one after
the other, so a row finds the keys and values of its predecessors written. Attention is in
``attention.py``.

On a GPU the library also chooses its batched kernels by the number of blocks, so there bits may
differ; the GPU kernels are what promises exactness there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from atlasd.models.attention import BLOCK, Unit, attend, make_unit
from atlasd.models.config import ModelConfig
from atlasd.models.decoder import Float32, Int32
from atlasd.models.torch_weights import Layer, pack_weights

TILE = 8
"""Rows of a decode pass. On a CPU core eight cost little more than one: the matmuls of 11M fp32
parameters take 2.3 ms at 1 row, 3.1 at 8 and 5.2 at 16 (AVX-512, one thread)."""

ATTENTION_TILE = 4
"""Decode rows of one slot that attend together."""

Int64 = npt.NDArray[np.int64]
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Pass:
    """A fixed number of rows on their way through the layers, padding included."""

    tokens: Tensor
    rotation: Tensor
    """[rows, heads + 2 kv heads, head_dim / 2], complex; 1 for the values, which do not turn."""

    writes: Tensor
    """[rows, 2 kv heads]: the cache rows that keys and values of a row go to."""

    units: list[Unit]


class LlamaDecoder:
    """Serves ``models.decoder.Decoder`` with torch, on a CPU or a GPU."""

    prefill_chunk = BLOCK
    prefill_rows = 4 * BLOCK

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, npt.NDArray[Any]],
        *,
        precision: torch.dtype = torch.float32,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        slots: int = 1,
        slot_tokens: int = 2048,
        progress: Progress | None = None,
    ) -> None:
        """``weights`` maps Hugging Face's names to float32, float16 or raw bfloat16 (uint16) arrays
        and is only read here. Weights are rounded to ``precision``; matmuls compute in ``dtype``
        (None: in the precision). Keys and values are kept in float32 on a CPU and in ``dtype`` on
        a GPU. ``slot_tokens`` is rounded up to whole blocks."""
        self.config = config
        self.vocab_size = config.vocab_size
        self.slots = slots
        self.blocks = math.ceil(slot_tokens / BLOCK)
        self.slot_tokens = self.blocks * BLOCK
        self.device = torch.device(device)
        self.dtype = dtype or precision
        self.weights = pack_weights(
            weights,
            config,
            precision=precision,
            dtype=self.dtype,
            device=device,
            progress=progress,
        )
        self.trash = 2 * slots * self.blocks * config.kv_heads * BLOCK
        """The cache row that padding writes to, one past the slots."""

        kind = torch.float32 if self.device.type == "cpu" else self.dtype
        shape = (config.layers, self.trash + 1, config.head_dim)
        self.cache_rows = torch.zeros(shape, dtype=kind, device=self.device)
        # [layers, keys or values, slots, blocks, kv heads, BLOCK, head_dim]
        self.cache = self.cache_rows[:, : self.trash].view(
            config.layers, 2, slots, self.blocks, config.kv_heads, BLOCK, config.head_dim
        )
        cos, sin = config.rope.tables(self.slot_tokens)
        self.rotation = torch.complex(torch.from_numpy(cos), torch.from_numpy(sin)).to(self.device)
        self.still = torch.ones(1, config.kv_heads, config.head_dim // 2, dtype=torch.complex64)
        self.still = self.still.to(self.device)
        self.windows = set(config.sliding_window)

    def bucket(self, rows: int) -> int:
        """Rows are padded to whole passes."""
        return math.ceil(rows / TILE) * TILE

    @torch.inference_mode()
    def forward(
        self,
        tokens: Int32,
        slots: Int32,
        positions: Int32,
        logits_rows: Int32,
        *,
        prefill: bool = False,
    ) -> Float32:
        """See ``Decoder.forward``."""
        if not len(tokens):
            return np.empty((0, self.vocab_size), np.float32)
        size = BLOCK if prefill else TILE
        hidden = []
        members = _chunks(slots, positions) if prefill else _tiles(len(tokens))
        place = np.empty(len(tokens), np.int64)
        for number, rows in enumerate(members):
            at = positions[rows] % BLOCK if prefill else np.arange(len(rows))
            place[rows] = number * size + at
            step = self._prepare(tokens[rows], slots[rows], positions[rows], at, size)
            hidden.append(self._run(step))
        return self._logits(torch.cat(hidden), place[logits_rows])

    @torch.inference_mode()
    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Copy keys and values of positions [0, length) from one slot to another."""
        blocks = math.ceil(length / BLOCK)
        self.cache[:, :, target, :blocks] = self.cache[:, :, source, :blocks]

    def memory_bytes(self) -> dict[str, int]:
        """Bytes held, by purpose."""
        return {
            "weights": self.weights.nbytes(),
            "slots": self.cache_rows.nbytes,
            "scratch": self.rotation.nbytes,
        }

    def close(self) -> None:
        """Free everything; the decoder cannot be used afterwards."""
        del self.weights, self.cache, self.cache_rows, self.rotation

    def _prepare(self, tokens: Int32, slots: Int32, positions: Int32, at: Int64, size: int) -> Pass:
        """Lay rows out at the places ``at`` of a pass and work out all that the layers share."""
        config = self.config
        inputs = np.zeros((2, size), np.int64)
        inputs[0, at], inputs[1, at] = tokens, positions
        heads = np.arange(config.kv_heads)
        block = slots.astype(np.int64) * self.blocks + positions // BLOCK
        keys = (block[:, None] * config.kv_heads + heads) * BLOCK + (positions % BLOCK)[:, None]
        writes = np.full((size, 2 * config.kv_heads), self.trash, np.int64)
        writes[at] = np.concatenate((keys, keys + self.trash // 2), axis=1)
        on_device = torch.from_numpy(inputs).to(self.device)
        turning = config.heads + config.kv_heads
        turned = self.rotation[on_device[1]][:, None].expand(-1, turning, -1)
        return Pass(
            tokens=on_device[0],
            rotation=torch.cat((turned, self.still.expand(size, -1, -1)), dim=1),
            writes=torch.from_numpy(writes).to(self.device),
            units=list(self._units(slots, positions.astype(np.int64), at, size)),
        )

    def _units(self, slots: Int32, positions: Int64, at: Int64, size: int) -> list[Unit]:
        """Cut the rows of a pass into units of one slot each."""
        most = size if size == BLOCK else ATTENTION_TILE
        group = self.config.heads // self.config.kv_heads
        ends = [*(np.flatnonzero(np.diff(slots)) + 1).tolist(), len(slots)]
        units, first = [], 0
        for end in ends:
            while first < end:
                rows = slice(first, min(first + most, end))
                unit = make_unit(
                    int(slots[first]),
                    positions[rows],
                    at[rows],
                    most,
                    group,
                    self.windows,
                    self.device,
                )
                units.append(unit)
                first = rows.stop
        return units

    def _run(self, step: Pass) -> Tensor:
        """Take a pass through all layers: [rows, hidden]."""
        config, size = self.config, len(step.tokens)
        heads, width = config.heads, config.head_dim
        scale = 1.0 / math.sqrt(width)
        hidden = functional.embedding(step.tokens, self.weights.embedding)
        attended = torch.zeros(size, heads * width, dtype=self.cache.dtype, device=self.device)
        for number, layer in enumerate(self.weights.layers):
            states = self._states(hidden, layer)
            pairs = torch.view_as_complex(states.view(size, -1, width // 2, 2))
            turned = torch.view_as_real(pairs * step.rotation).view(size, -1, width)
            turned = turned.to(self.cache.dtype)
            self.cache_rows[number][step.writes] = turned[:, heads:]
            keys, values = self.cache[number]
            for unit in step.units:
                window = config.sliding_window[number]
                mixed = attend(turned, keys[unit.slot], values[unit.slot], unit, window, scale)
                attended[unit.rows[: unit.filled]] = mixed
            hidden = torch.addmm(hidden, attended.to(self.dtype), layer.output)
            gate_up = torch.mm(self._norm(hidden, layer.mlp_norm), layer.gate_up)
            gate, up = gate_up.chunk(2, dim=1)
            hidden = torch.addmm(hidden, functional.silu(gate).mul_(up), layer.down)
        return hidden

    def _states(self, hidden: Tensor, layer: Layer) -> Tensor:
        """Queries, keys and values before they turn: [rows, heads + 2 kv heads, head_dim]."""
        normed = self._norm(hidden, layer.attention_norm)
        if layer.qkv_bias is None:
            packed = torch.mm(normed, layer.qkv)
        else:
            packed = torch.addmm(layer.qkv_bias, normed, layer.qkv)
        states = packed.view(len(hidden), -1, self.config.head_dim)
        if layer.q_norm is not None and layer.k_norm is not None:
            heads, kv_heads = self.config.heads, self.config.kv_heads
            query, key = states[:, :heads], states[:, heads : heads + kv_heads]
            states[:, :heads] = self._norm(query, layer.q_norm)
            states[:, heads : heads + kv_heads] = self._norm(key, layer.k_norm)
        return states.float()

    def _norm(self, states: Tensor, weight: Tensor) -> Tensor:
        return functional.rms_norm(states, weight.shape, weight, self.config.rms_eps)

    def _logits(self, hidden: Tensor, rows: Int64) -> Float32:
        """Logits [rows, vocab] of the hidden states at ``rows``, in passes of ``TILE``."""
        logits = np.empty((len(rows), self.vocab_size), np.float32)
        for first in range(0, len(rows), TILE):
            some = rows[first : first + TILE]
            padded = np.append(some, np.repeat(some[-1:], TILE - len(some)))
            chosen = hidden.index_select(0, torch.from_numpy(padded).to(self.device))
            normed = self._norm(chosen, self.weights.norm)
            if self.weights.head is None:
                scores = functional.linear(normed, self.weights.embedding)
            else:
                scores = torch.mm(normed, self.weights.head)
            logits[first : first + TILE] = scores[: len(some)].float().cpu().numpy()
        return logits


def _tiles(rows: int) -> list[Int64]:
    """Decode rows in order, ``TILE`` at a time."""
    return [np.arange(first, min(first + TILE, rows)) for first in range(0, rows, TILE)]


def _chunks(slots: Int32, positions: Int32) -> list[Int64]:
    """Prefill rows by slot and chunk, in the order they come."""
    chunk = slots.astype(np.int64) * (1 << 32) + positions // BLOCK
    cuts = np.flatnonzero(np.diff(chunk)) + 1
    return [np.asarray(rows) for rows in np.split(np.arange(len(chunk)), cuts)]
