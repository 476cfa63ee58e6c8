"""The target's states that chose a passage's tokens, in a byte a number."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlasd.draft.drafter import Float32

Int8 = npt.NDArray[np.int8]


@dataclass(frozen=True, eq=False)
class Chosen:
    """Row i of a passage read a token that this state chose; zeros where none is known."""

    values: Int8
    """[rows, hidden]"""
    scales: Float32
    """What a one is worth, [rows]."""

    @classmethod
    def of(cls, states: Float32) -> Chosen:
        """Round states [rows, hidden]; an error of half a step in 127 is far below what a drafter
        makes of them."""
        scales = (np.abs(states).max(axis=1) / 127).astype(np.float32)
        safe = np.where(scales > 0, scales, 1)[:, None]
        return cls(np.rint(states / safe).astype(np.int8), scales)

    def states(self) -> Float32:
        """[rows, hidden]"""
        states: Float32 = self.values.astype(np.float32) * self.scales[:, None]
        return states

    @property
    def nbytes(self) -> int:
        return self.values.nbytes + self.scales.nbytes
