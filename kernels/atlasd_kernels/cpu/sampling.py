"""Choosing the target's own next token, and its top choices, from rows of logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atlasd_kernels.cpu.library import Noise, native

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]

NOISE = np.dtype(Noise)
MASK = np.uint64(0xFFFFFFFF)


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

    Temperature 0 is argmax, ties to the lowest id. Otherwise argmax of
    ``logit / temperature + gumbel_noise(seed, choice, output_index, id)``. Masked tokens are
    handed in as -inf.
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


def philox(counter: list[npt.NDArray[np.uint64]], key: tuple[int, int]) -> npt.NDArray[np.uint64]:
    """Philox4x32-10 over arrays of counters: four words [4, n] of 32 bits."""
    a, b, c, d = counter
    key0, key1 = key
    for _ in range(10):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b = (second >> np.uint64(32)) ^ b ^ np.uint64(key0), second & MASK
        c, d = (first >> np.uint64(32)) ^ d ^ np.uint64(key1), first & MASK
        key0, key1 = (key0 + 0x9E3779B9) & 0xFFFFFFFF, (key1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([a, b, c, d])


def gumbel_noise(seed: int, choice: int, output_index: int, vocab_size: int) -> Float32:
    """The noise of one row, in numpy: what ``choose`` adds, to float32 rounding of two logs.

    Philox4x32-10 with key (seed low, seed high) and counter (id // 4, output_index, choice, 0);
    word id % 4 of its output, x, gives u = (x // 512 + 0.5) / 2**23 and the noise -log(-log(u)).
    """
    blocks = np.arange(-(-vocab_size // 4), dtype=np.uint64)
    fixed = [np.full_like(blocks, v & 0xFFFFFFFF) for v in (output_index, choice, 0)]
    words = philox([blocks, *fixed], (seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF))
    x = words.T.reshape(-1)[:vocab_size] >> np.uint64(9)
    u = (x.astype(np.float64) + 0.5) * 2.0**-23
    return -np.log(-np.log(u)).astype(np.float32)


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
