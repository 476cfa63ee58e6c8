"""The static drafter's lookahead in one native call."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from atlasd_kernels.cpu.correction import Correction
from atlasd_kernels.cpu.decoder import CpuDecoder, chosen_by
from atlasd_kernels.cpu.library import Noise, check, native

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
MOST_ROWS = 256


class DraftedChain(NamedTuple):
    """Tokens of one lookahead and the drafter's own probability of each (at temperature 1)."""

    tokens: Int32
    probabilities: Float32


class _Buffers:
    """What a decoder's drafts are asked and answered in, whose addresses are asked for once: asking
    for all of them took as long as drafting a token."""

    def __init__(self, hidden: int) -> None:
        self.draft = native().draft
        self.read = np.empty(MOST_ROWS, np.int32)
        self.chose = np.empty((1, hidden), np.float32)
        self.drafted, self.probabilities = np.empty(0, np.int32), np.empty(0, np.float32)
        self.noise, self.count = Noise(), ctypes.c_int64()
        self.by_reference = ctypes.byref(self.noise), ctypes.byref(self.count)
        self.addresses = self.read.ctypes.data, self.chose.ctypes.data
        self.answers = 0, 0

    def make_room(self, limit: int) -> None:
        if limit > len(self.drafted):
            self.drafted, self.probabilities = (
                np.empty(limit, np.int32),
                np.empty(limit, np.float32),
            )
            self.answers = self.drafted.ctypes.data, self.probabilities.ctypes.data


_buffers: WeakKeyDictionary[CpuDecoder, _Buffers] = WeakKeyDictionary()


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
    rows = len(tokens)
    if not 1 <= rows <= MOST_ROWS:
        raise ValueError("a draft begins with 1 to 256 rows")
    buffers = _buffers.get(decoder)
    if buffers is None:
        buffers = _buffers[decoder] = _Buffers(decoder.spec.hidden_size)
    buffers.make_room(limit)
    buffers.read[:rows] = tokens
    read, chosen = buffers.addresses
    if chose is None:
        chosen = 0
    else:
        buffers.chose[:] = chosen_by(decoder, chose, 1)
    noise = buffers.noise
    noise.temperature, noise.seed = temperature, seed
    noise.choice, noise.output_index = choice, output_index
    noise_reference, count = buffers.by_reference
    drafted, probabilities = buffers.answers
    error = buffers.draft(
        decoder.handle,
        None if correction is None else correction.handle,
        before,
        read,
        rows,
        slot,
        position,
        chosen,
        limit,
        stop_probability,
        noise_reference,
        head_tokens is not None,
        drafted,
        probabilities,
        count,
    )
    if error is not None:
        check(error)
    made = buffers.count.value
    return DraftedChain(buffers.drafted[:made].copy(), buffers.probabilities[:made].copy())
