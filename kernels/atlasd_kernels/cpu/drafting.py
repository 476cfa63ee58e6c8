"""The static drafter's lookahead in one native call."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlasd_kernels.cpu.decoder import CpuDecoder
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
    last_token: int,
    slot: int,
    position: int,
    limit: int,
    *,
    stop_probability: float = 0.0,
    temperature: float = 0.0,
    seed: int = 0,
    choice: int = 0,
    output_index: int = 0,
    head_tokens: Int32 | None = None,
) -> DraftedChain:
    """Draft up to ``limit`` tokens after ``last_token``, which goes to ``position`` of ``slot``.

    Each token is chosen as ``choose`` would with the target's own noise (the first has index
    ``output_index``). Drafting ends after the token whose running product of probabilities falls
    below ``stop_probability``; that token is not returned. ``head_tokens`` restricts the head to
    these ids. Keys and values of every row that ran stay in the slot.
    """
    if head_tokens is not None:
        decoder.reduce_head(head_tokens)
    tokens = np.empty(limit, np.int32)
    probabilities = np.empty(limit, np.float32)
    drafted = ctypes.c_int64()
    check(
        native().draft(
            decoder.handle,
            last_token,
            slot,
            position,
            limit,
            stop_probability,
            ctypes.byref(Noise(temperature, seed, choice, output_index)),
            int(head_tokens is not None),
            tokens.ctypes.data,
            probabilities.ctypes.data,
            ctypes.byref(drafted),
        )
    )
    return DraftedChain(tokens[: drafted.value], probabilities[: drafted.value])
