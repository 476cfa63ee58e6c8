"""The decoder of the Llama skeleton in torch: Llama, Qwen2, Qwen3 and Mistral.

Exactness with library matmuls rests on fixed shapes. Every row goes through a *pass* of a fixed
number of rows: decode rows through passes of ``TILE`` or of what agrees with it bit for bit
(``agreement.py``), prefill through passes of one chunk in which rows lie at their absolute
positions; what is missing is padded. The passes of a call run one after the other, so a row finds
the keys and values of its predecessors written. Attention is in ``attention.py``.

On a GPU the library also chooses its batched kernels by the number of blocks, so there bits may
differ; the GPU kernels are what promises exactness there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from atlasd.models.agreement import TRIED_ROWS, Sizes, agreeing_sizes
from atlasd.models.attention import BLOCK, attend
from atlasd.models.config import ModelConfig
from atlasd.models.decoder import Float32, Int32, check_inside
from atlasd.models.locate import Progress
from atlasd.models.passes import Pass, Passes
from atlasd.models.torch_weights import Layer, pack_weights

Int64 = npt.NDArray[np.int64]


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
        self.passes = Passes(config, slots, self.blocks, self.device)
        kind = torch.float32 if self.device.type == "cpu" else self.dtype
        shape = (config.layers, self.passes.trash + 1, config.head_dim)
        self.cache_rows = _zeros(shape, kind, self.device)
        # [layers, keys or values, slots, blocks, kv heads, BLOCK, head_dim]
        self.cache = self.cache_rows[:, : self.passes.trash].view(
            config.layers, 2, slots, self.blocks, config.kv_heads, BLOCK, config.head_dim
        )
        self.sizes = Sizes()

    @torch.inference_mode()
    def find_sizes(self) -> None:
        """Find the row counts that agree bit for bit here, at torch's present thread count. To be
        called before slots hold anything; the first one is overwritten."""
        tried = self.cache[0, :, 0, :2]
        tried.normal_(generator=torch.Generator(self.device).manual_seed(0))
        first = min(BLOCK + 7, self.slot_tokens - TRIED_ROWS)
        tokens = (np.arange(TRIED_ROWS) * 7919 % self.vocab_size).astype(np.int32)
        positions = np.arange(first, first + TRIED_ROWS, dtype=np.int32)

        def run(sizes: Sizes, order: list[int], whole: bool) -> Tensor:
            self.sizes = sizes
            passes = self.passes.decode(
                tokens[order], np.zeros(TRIED_ROWS, np.int32), positions[order], sizes
            )
            hidden, places = self._through(passes, layers=1)
            rows = hidden[torch.from_numpy(places)]
            if not whole:
                return rows
            return torch.cat((rows, torch.from_numpy(self._logits(hidden, places))), dim=1)

        self.sizes = agreeing_sizes(run)
        tried.zero_()

    def bucket(self, rows: int) -> int:
        """Rows are padded to whole passes."""
        return self.sizes.bucket(rows)

    @torch.inference_mode()
    def forward(
        self, tokens: Int32, slots: Int32, positions: Int32, wanted: Int32, *, prefill: bool = False
    ) -> Float32:
        """See ``Decoder.forward``."""
        check_inside(self, slots, positions)
        if prefill:
            passes = self.passes.prefill(tokens, slots, positions)
        else:
            passes = self.passes.decode(tokens, slots, positions, self.sizes)
        hidden, places = self._through(passes)
        return self._logits(hidden, places[wanted])

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
            "scratch": self.passes.nbytes,
        }

    def close(self) -> None:
        """Free everything; the decoder cannot be used afterwards."""
        del self.weights, self.cache, self.cache_rows, self.passes

    def _through(self, passes: list[Pass], layers: int | None = None) -> tuple[Tensor, Int64]:
        """Run passes one after the other; hidden states, and the place of each row in them."""
        hidden, places, start = [], [], 0
        for each in passes:
            hidden.append(self._run(each, layers))
            places.append(each.places + start)
            start += len(each.tokens)
        return torch.cat(hidden), np.concatenate(places)

    def _run(self, step: Pass, layers: int | None = None) -> Tensor:
        """Take a pass through the layers (all of them, or the first few): [rows, hidden]."""
        config, size = self.config, len(step.tokens)
        heads, width = config.heads, config.head_dim
        scale = 1.0 / math.sqrt(width)
        hidden = functional.embedding(step.tokens, self.weights.embedding)
        attended = torch.zeros(size, heads * width, dtype=self.cache.dtype, device=self.device)
        for number, layer in enumerate(self.weights.layers[:layers]):
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
        """Logits [rows, vocab] of the hidden states at ``rows``."""
        logits = np.empty((len(rows), self.vocab_size), np.float32)
        first = 0
        for count in self.sizes.split(len(rows)):
            some = rows[first : first + count]
            padding = self.sizes.pass_for(count) - count
            padded = np.append(some, np.repeat(some[-1:], padding))
            chosen = hidden.index_select(0, torch.from_numpy(padded).to(self.device))
            normed = self._norm(chosen, self.weights.norm)
            if self.weights.head is None:
                scores = functional.linear(normed, self.weights.embedding)
            else:
                scores = torch.mm(normed, self.weights.head)
            logits[first : first + count] = scores[:count].float().cpu().numpy()
            first += count
        return logits


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros that take no memory on a CPU until they are written, which ``torch.zeros`` does."""
    if device.type == "cpu" and dtype == torch.float32:
        return torch.from_numpy(np.zeros(shape, np.float32))
    return torch.zeros(shape, dtype=dtype, device=device)
