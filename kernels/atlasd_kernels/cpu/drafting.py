"""The static drafter's lookahead in one native call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlasd_kernels.cpu.correction import Correction
from atlasd_kernels.cpu.decoder import CpuDecoder, chosen_by
from atlasd_kernels.cpu.library import Noise, check, native

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class DraftedChain:
    """Tokens of one lookahead and the drafter's own probability of each (at temperature 1)."""

    tokens: Int32
    probabilities: Float32


def draft_chain(
    decoder: CpuDecoder,
    tokens: Int32 | Sequence[int],
    slot: int,
    position: int,
    limit: int,
    *,
    chose: Float32 | None = None,
    stop_probability: float = 0.0,
    temperature: float = 0.0,
    seed: int = 0,
    choice: int = 0,
    output_index: int = 0,
    head_tokens: Int32 | None = None,
    correction: Correction | None = None,
    before: int = 0,
) -> DraftedChain:
    """Draft up to ``limit`` tokens after ``tokens`` [n], which go to ``position`` of ``slot`` on.

    n is 1 to 256. Each token is chosen as ``choose`` would with the target's own noise (the first
    has index ``output_index``). Drafting ends after the token whose running product of
    probabilities falls below ``stop_probability``; that token is not returned. ``head_tokens``
    restricts the head to these ids. ``chose`` [1, hidden] is the target's state that chose the last
    of ``tokens``, for a decoder that carries states (``CpuDecoder.set_carry``). With a
    ``correction`` its head is used, and ``before`` is the token before the last. Keys and values
    of every row that ran stay in the slot.
    """
    if head_tokens is not None:
        decoder.reduce_head(head_tokens)
    read = np.ascontiguousarray(tokens, np.int32)
    chose = chosen_by(decoder, chose, 1)
    slots = np.full(len(read), slot, np.int32)
    positions = np.arange(position, position + len(read), dtype=np.int32)
    drafted = np.empty(limit, np.int32)
    probabilities = np.empty(limit, np.float32)
    count = ctypes.c_int64()
    check(
        native().draft(
            decoder.handle,
            None if correction is None else correction.handle,
            before,
            read.ctypes.data,
            slots.ctypes.data,
            positions.ctypes.data,
            len(read),
            None if chose is None else chose.ctypes.data,
            limit,
            stop_probability,
            ctypes.byref(Noise(temperature, seed, choice, output_index)),
            int(head_tokens is not None),
            drafted.ctypes.data,
            probabilities.ctypes.data,
            ctypes.byref(count),
        )
    )
    return DraftedChain(drafted[: count.value], probabilities[: count.value])
