"""Choosing the target's own next token, and its top choices, from rows of logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atlasd_kernels.cpu.library import Noise, native

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

NOISE = np.dtype(Noise)


def rows_of(logits: Float32) -> tuple[Float32, int]:
    """The logits with contiguous rows, and the distance between rows in floats."""
    if logits.dtype != np.float32 or logits.ndim != 2:
        raise ValueError("logits must be float32 [rows, vocab]")
    if logits.strides[1] != 4 or logits.strides[0] < 4 * logits.shape[1]:
        logits = np.ascontiguousarray(logits)
    return logits, logits.strides[0] // 4


def choose(
    logits: Float32,
    *,
    temperature: Float32 | float = 0.0,
    seed: npt.NDArray[np.uint64] | int = 0,
    choice: Int32 | int = 0,
    output_index: Int32 | int = 0,
) -> Int32:
    """Token per row of logits [L, vocab]; every argument may be given per row [L].

    Temperature 0 is argmax, ties to the lowest id. Otherwise argmax of ``logit / temperature`` plus
    the noise of (seed, choice, output_index, id), see ``atlasd_kernels.noise``, to float32
    rounding of two logs. Masked tokens are handed in as -inf.
    """
    logits, ld = rows_of(logits)
    rows, vocab = logits.shape
    noise = np.empty(rows, NOISE)
    noise["temperature"] = temperature
    # wraps as C does: any 64 bits are a seed
    noise["seed"] = seed & 0xFFFF_FFFF_FFFF_FFFF if isinstance(seed, int) else seed
    noise["choice"] = choice
    noise["output_index"] = output_index
    tokens = np.empty(rows, np.int32)
    native().choose(logits.ctypes.data, rows, ld, vocab, noise.ctypes.data, tokens.ctypes.data)
    return tokens


def top_k(logits: Float32, k: int) -> tuple[Int32, Float32, Float32]:
    """Per row of logits [L, vocab]: ids [L, k] best first, their log-probabilities [L, k], and
    the log-sum-exp [L]. Ties go to the lowest id."""
    logits, ld = rows_of(logits)
    rows, vocab = logits.shape
    if not 1 <= k <= vocab:
        raise ValueError("k must be between 1 and the vocabulary's size")
    ids = np.empty((rows, k), np.int32)
    values = np.empty((rows, k), np.float32)
    totals = np.empty(rows, np.float32)
    native().top_k(
        logits.ctypes.data,
        rows,
        ld,
        vocab,
        k,
        ids.ctypes.data,
        values.ctypes.data,
        totals.ctypes.data,
    )
    return ids, values - totals[:, None], totals
