"""One step of a decoder as a fixed sequence of kernels over fixed buffers.

Nine kernels a layer: QKV; its end (bias, q/k norm, RoPE, cache); attention, and its splits added
up; output; residual; gate, up and SiLU; down; residual. The norms are inside of their neighbours.
Nothing here asks the device anything, so a CUDA graph can hold all of it.
"""

from __future__ import annotations

import numpy as np
import torch
from atlasd_kernels.gpu import attention, matmul, residual, rope
from atlasd_kernels.gpu.formats import PackedMatrix
from atlasd_kernels.gpu.tiling import Tiling, decode_tiling, prefill_tiling
from torch import Tensor

from atlasd.models.config import ModelConfig
from atlasd.models.cuda_layout import BUCKETS, FIELDS, attention_tiles, clear
from atlasd.models.quant import QuantModel

MOST_DECODED = BUCKETS[-1]


class Inputs:
    """The step's int32 array on both sides; pinned here, so that the copy waits for nothing.

    There are two of them here: while one is on its way, the other is made ready for the next step.
    """

    def __init__(self, size: int, device: torch.device) -> None:
        shape, pinned = (len(FIELDS), size), device.type == "cuda"
        self._hosts = [torch.zeros(shape, dtype=torch.int32, pin_memory=pinned) for _ in range(2)]
        self.device = torch.zeros(shape, dtype=torch.int32, device=device)
        self.array = self._hosts[0].numpy()
        """To be filled for the next step; what is not filled is padding."""
        clear(self.array)

    def send(self) -> None:
        """Start the copy."""
        self.device.copy_(self._hosts[0], non_blocking=True)

    def prepare(self) -> None:
        """Make the other array ready, after ``send``; the copy before the last must be over."""
        self._hosts.reverse()
        self.array = self._hosts[0].numpy()
        clear(self.array)

    def __getitem__(self, name: str) -> Tensor:
        return self.device[FIELDS.index(name)]

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return self.device.nbytes


class Step:
    """The buffers of up to ``rows`` rows and the kernels that go over them.

    ``cache`` is [layers, keys or values, slots, kv_heads, slot_tokens, head_dim].
    """

    def __init__(
        self,
        model: QuantModel,
        config: ModelConfig,
        cache: Tensor,
        inputs: Inputs,
        rows: int,
        *,
        prefill: bool,
        shared: Step | None = None,
    ) -> None:
        self.model, self.config, self.cache = model, config, cache
        self.inputs, self.rows, self.prefill = inputs, rows, prefill
        self.group = config.heads // config.kv_heads
        device, kind = cache.device, cache.dtype
        hidden, width = config.hidden_size, config.heads * config.head_dim
        columns = width + 2 * config.kv_heads * config.head_dim
        layer = model.layers[0]
        self._qkv = self._tiling(layer.qkv, whole=False)
        self._output = self._tiling(layer.output, whole=False)
        self._gate_up = self._tiling(layer.gate_up, whole=True)
        self._down = self._tiling(layer.down, whole=False)
        head = model.head
        self._head = decode_tiling(head.rows, head.columns, head.format, whole=True)
        widest = max(
            self._qkv.splits * columns,
            self._output.splits * hidden,
            self._down.splits * hidden,
        )

        def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=device)

        self.hidden = empty(rows, hidden)
        self.scaled = empty(rows, hidden, dtype=kind)
        self.squares = empty(rows, residual.blocks(hidden))
        self.query = empty(rows, config.heads, config.head_dim, dtype=kind)
        self.attended = empty(rows, config.heads, config.head_dim, dtype=kind)
        self.gated = empty(rows, config.intermediate_size, dtype=kind)
        self.partial = empty(rows * widest)
        if prefill:
            self.parts = self.stats = self.partial
        else:
            shape = (rows, config.heads, attention.SPLITS)
            self.parts = empty(*shape, config.head_dim)
            self.stats = empty(*shape, 2)
        self.cos: Tensor
        self.sin: Tensor
        self.logits: Tensor
        if shared is not None:
            self.cos, self.sin, self.logits = shared.cos, shared.sin, shared.logits
        else:
            cos, sin = config.rope.tables(cache.shape[4])
            self.cos = torch.from_numpy(np.ascontiguousarray(cos)).to(device)
            self.sin = torch.from_numpy(np.ascontiguousarray(sin)).to(device)
            self.logits = empty(MOST_DECODED, config.vocab_size)

    @property
    def nbytes(self) -> int:
        """Bytes of buffers held here."""
        held = [self.hidden, self.scaled, self.squares, self.query, self.attended, self.gated]
        held += [self.partial, self.cos, self.sin, self.logits]
        held += [] if self.prefill else [self.parts, self.stats]
        return sum(t.nbytes for t in held)

    def run(self, count: int, units: int, wanted: int) -> None:
        """Take the rows in ``inputs`` through the model; logits of the first ``wanted`` of
        ``inputs["wanted"]`` go to ``logits``. All counts are those of the padded step."""
        config, model = self.config, self.model
        eps, inputs = config.rms_eps, self.inputs
        residual.embed(
            inputs["tokens"],
            model.embedding,
            self.hidden,
            model.layers[0].attention_gain,
            self.scaled,
            self.squares,
            count=count,
        )
        norm = (self.squares, config.hidden_size, eps)
        for number, layer in enumerate(model.layers):
            self._matmul(self.scaled, layer.qkv, self._qkv, count)
            self._attend(number, count, units)
            attended = self.attended.view(self.rows, -1)
            self._matmul(attended, layer.output, self._output, count)
            self._add(layer.mlp_gain, self._output, count)
            matmul.matmul(
                self.scaled,
                layer.gate_up,
                self.gated,
                self._gate_up,
                count=count,
                norm=norm,
                silu=True,
            )
            self._matmul(self.gated, layer.down, self._down, count)
            last = number + 1 == len(model.layers)
            gain = model.gain if last else model.layers[number + 1].attention_gain
            self._add(gain, self._down, count)
        if wanted:
            matmul.matmul(
                self.scaled,
                model.head,
                self.logits,
                self._head,
                count=wanted,
                norm=norm,
                rows=inputs["wanted"],
            )

    def _tiling(self, weight: PackedMatrix, *, whole: bool) -> Tiling:
        if self.prefill:
            return prefill_tiling(weight.format)
        return decode_tiling(weight.rows, weight.columns, weight.format, whole=whole)

    def _matmul(self, x: Tensor, weight: PackedMatrix, tiling: Tiling, count: int) -> None:
        matmul.matmul(x, weight, self.partial, tiling, count=count)

    def _add(self, gain: Tensor, tiling: Tiling, count: int) -> None:
        residual.add(
            self.partial,
            self.hidden,
            gain,
            self.scaled,
            self.squares,
            count=count,
            splits=tiling.splits,
        )

    def _attend(self, number: int, count: int, units: int) -> None:
        config, inputs = self.config, self.inputs
        layer, (keys, values) = self.model.layers[number], self.cache[number]
        rope.finish_qkv(
            self.partial,
            self.squares,
            layer.qkv_bias,
            layer.qk_gains,
            self.cos,
            self.sin,
            inputs["slots"],
            inputs["positions"],
            self.query,
            keys,
            values,
            count=count,
            splits=self._qkv.splits,
            width=config.hidden_size,
            eps=config.rms_eps,
        )
        attention.attend(
            self.query,
            keys,
            values,
            attention.Units(inputs["unit_slots"], inputs["unit_first"], inputs["unit_rows"]),
            inputs["positions"],
            self.attended,
            self.parts,
            self.stats,
            count=count,
            unit_limit=units,
            tiles=attention_tiles(count, self.group),
            window=config.sliding_window[number],
            whole=self.prefill,
            splits=attention.most_splits(self.cache.shape[4]),
        )
