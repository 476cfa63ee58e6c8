"""An adapter's weights on the native side, drafting with them, and the states they correct."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from weakref import finalize

import numpy as np
import numpy.typing as npt

from atlasd_kernels.cpu.decoder import CpuDecoder, chosen_by
from atlasd_kernels.cpu.library import CorrectionWeights, check, native

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LowRank:
    """A draft head of chosen tokens and the low-rank correction before it; see correction.h."""

    head: Int32
    """Token ids [n]."""
    down: Float32
    """[hidden, rank]"""
    up: Float32
    """[rank, hidden]"""
    last: Float32
    """Of the last token, by its code [codes, rank]."""
    before: Float32
    """The same of the token before it."""
    bias: Float32
    """[n]"""


class Correction:
    """A correction on the native side. The arrays are copied; it belongs to the decoder it was
    made for, and is freed with this object."""

    def __init__(self, decoder: CpuDecoder, weights: LowRank) -> None:
        w, (hidden, rank) = weights, weights.down.shape
        if hidden != decoder.spec.hidden_size or w.up.shape != (rank, hidden):
            raise ValueError("the correction has another hidden size")
        fit = w.last.shape == w.before.shape and w.last.shape[1:] == (rank,)
        if not fit or w.bias.shape != w.head.shape:
            raise ValueError("the correction's arrays do not fit each other")
        ids = np.ascontiguousarray(w.head, np.int32)
        arrays = [
            np.ascontiguousarray(array, np.float32)
            for array in (w.down, w.up, w.last, w.before, w.bias)
        ]
        given = CorrectionWeights(
            len(ids), rank, len(w.last), ids.ctypes.data, *(a.ctypes.data for a in arrays)
        )
        self.decoder = decoder
        self.nbytes = sum(a.nbytes for a in arrays) + 2 * len(ids) * hidden
        self.handle = ctypes.c_void_p()
        check(native().correction(decoder.handle, ctypes.byref(given), ctypes.byref(self.handle)))
        finalize(self, native().correction_free, self.handle)


def last_states(
    decoder: CpuDecoder,
    tokens: Int32,
    slot: int,
    position: int,
    chose: Float32 | None = None,
) -> Float32:
    """The normalised last hidden states [n, hidden] of tokens [n] read from ``position`` on;
    ``chose``: the states [n, hidden] that chose the tokens, for a decoder that carries states."""
    tokens = np.ascontiguousarray(tokens, np.int32)
    chose = chosen_by(decoder, chose, len(tokens))
    slots = np.full(len(tokens), slot, np.int32)
    positions = np.arange(position, position + len(tokens), dtype=np.int32)
    states = np.empty((len(tokens), decoder.spec.hidden_size), np.float32)
    check(
        native().states(
            decoder.handle,
            tokens.ctypes.data,
            slots.ctypes.data,
            positions.ctypes.data,
            len(tokens),
            None if chose is None else chose.ctypes.data,
            states.ctypes.data,
        )
    )
    return states
