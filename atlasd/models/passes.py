"""Laying rows out for the torch decoder: passes of a fixed number of rows, padding included."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from atlasd.models.agreement import Sizes
from atlasd.models.attention import BLOCK, Unit, make_unit
from atlasd.models.config import ModelConfig
from atlasd.models.decoder import Int32

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Pass:
    """A fixed number of rows on their way through the layers."""

    places: Int64
    """[rows of the call in this pass]: where in the pass they lie; the rest is padding."""

    tokens: Tensor
    rotation: Tensor
    """[rows, heads + 2 kv heads, head_dim / 2], complex; 1 for the values, which do not turn."""

    writes: Tensor
    """[rows, 2 kv heads]: the cache rows that keys and values of a row go to."""

    units: list[Unit]


class Passes:
    """Makes passes for a cache of ``slots`` slots of ``blocks`` blocks.

    Cache rows lie as [keys or values, slots, blocks, kv heads, BLOCK], and one more at the end that
    padding writes to.
    """

    def __init__(self, config: ModelConfig, slots: int, blocks: int, device: torch.device) -> None:
        self.blocks = blocks
        self.device = device
        self.trash = 2 * slots * blocks * config.kv_heads * BLOCK
        self._turning = config.heads + config.kv_heads
        self._kv_heads = config.kv_heads
        self._group = config.heads // config.kv_heads
        self._windows = set(config.sliding_window)
        cos, sin = config.rope.tables(blocks * BLOCK)
        self._rotation = torch.complex(torch.from_numpy(cos), torch.from_numpy(sin)).to(device)
        still = torch.ones(1, config.kv_heads, config.head_dim // 2, dtype=torch.complex64)
        self._still = still.to(device)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self._rotation.nbytes + self._still.nbytes

    def decode(self, tokens: Int32, slots: Int32, positions: Int32, sizes: Sizes) -> list[Pass]:
        """Passes of decode rows, in their order, each as small as ``sizes`` allow."""
        made, first = [], 0
        for count in sizes.split(len(tokens)):
            rows = slice(first, first + count)
            size = sizes.pass_for(count)
            places = np.arange(count)
            made.append(
                self._make(tokens[rows], slots[rows], positions[rows], places, size, sizes.unit_for)
            )
            first += count
        return made

    def prefill(self, tokens: Int32, slots: Int32, positions: Int32) -> list[Pass]:
        """A pass for each chunk; in it, rows lie where their positions are in the chunk."""
        chunk = slots.astype(np.int64) * (1 << 32) + positions // BLOCK
        cuts = np.flatnonzero(np.diff(chunk)) + 1
        return [
            self._make(
                tokens[rows],
                slots[rows],
                positions[rows],
                positions[rows].astype(np.int64) % BLOCK,
                BLOCK,
                lambda rows: BLOCK,
            )
            for rows in np.split(np.arange(len(chunk)), cuts)
        ]

    def _make(
        self,
        tokens: Int32,
        slots: Int32,
        positions: Int32,
        places: Int64,
        size: int,
        unit_for: Callable[[int], int],
    ) -> Pass:
        """Lay rows out at ``places`` of a pass and work out all that the layers share."""
        inputs = np.zeros((2, size), np.int64)
        inputs[0, places], inputs[1, places] = tokens, positions
        block = slots.astype(np.int64) * self.blocks + positions // BLOCK
        heads = block[:, None] * self._kv_heads + np.arange(self._kv_heads)
        keys = heads * BLOCK + (positions % BLOCK)[:, None]
        writes = np.full((size, 2 * self._kv_heads), self.trash, np.int64)
        writes[places] = np.concatenate((keys, keys + self.trash // 2), axis=1)
        on_device = torch.from_numpy(inputs).to(self.device)
        turned = self._rotation[on_device[1]][:, None].expand(-1, self._turning, -1)
        return Pass(
            places=places,
            tokens=on_device[0],
            rotation=torch.cat((turned, self._still.expand(size, -1, -1)), dim=1),
            writes=torch.from_numpy(writes).to(self.device),
            units=self._units(slots, positions.astype(np.int64), places, unit_for),
        )

    def _units(
        self, slots: Int32, positions: Int64, places: Int64, unit_for: Callable[[int], int]
    ) -> list[Unit]:
        """Cut the rows of a pass into units of one slot each."""
        units, first = [], 0
        for end in [*(np.flatnonzero(np.diff(slots)) + 1).tolist(), len(slots)]:
            while first < end:
                size = unit_for(end - first)
                rows = slice(first, min(first + size, end))
                units.append(
                    make_unit(
                        int(slots[first]),
                        positions[rows],
                        places[rows],
                        size,
                        self._group,
                        self._windows,
                        self.device,
                    )
                )
                first = rows.stop
        return units
