"""Gumbel noise that is a pure function of (seed, choice, output index, token id).

Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) with key
(seed low, seed high) and counter (id // 4, output index, choice, 0). Word id % 4 of the result,
x, gives u = (x // 512 + 0.5) / 2**23, and the noise is -log(-log(u)). Being counter-based, it
does not depend on which other tokens, rows or streams were looked at.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
UInt64 = npt.NDArray[np.uint64]

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = 0x9E3779B9
_WEYL_1 = 0xBB67AE85


def philox(seed: int, counters: tuple[UInt64, UInt64, UInt64, UInt64]) -> UInt64:
    """Ten rounds of Philox4x32 over counters of any one shape S; returns words [4, *S]."""
    c0, c1, c2, c3 = counters
    key0, key1 = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    for _ in range(10):
        product0, product1 = c0 * _MULTIPLIER_0, c2 * _MULTIPLIER_1
        c0, c1, c2, c3 = (
            (product1 >> _HALF) ^ c1 ^ np.uint64(key0),
            product1 & _LOW,
            (product0 >> _HALF) ^ c3 ^ np.uint64(key1),
            product0 & _LOW,
        )
        key0, key1 = (key0 + _WEYL_0) & 0xFFFFFFFF, (key1 + _WEYL_1) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3])


def _to_gumbel(words: UInt64) -> Float32:
    uniform = ((words >> np.uint64(9)).astype(np.float64) + 0.5) * 2.0**-23
    noise: Float32 = (-np.log(-np.log(uniform))).astype(np.float32)
    return noise


def gumbel(seed: int, choice: int, output_index: int, ids: npt.NDArray[np.int64]) -> Float32:
    """Noise of the given token ids [N]."""
    blocks = (ids >> 2).astype(np.uint64)
    words = philox(seed, _counters(blocks, output_index, choice))
    return _to_gumbel(words[ids & 3, np.arange(len(ids))])


def gumbel_row(seed: int, choice: int, output_index: int, vocab_size: int) -> Float32:
    """Noise of the whole vocabulary [vocab_size]."""
    blocks = np.arange((vocab_size + 3) // 4, dtype=np.uint64)
    words = philox(seed, _counters(blocks, output_index, choice))
    return _to_gumbel(words.T.reshape(-1)[:vocab_size])


def _counters(
    blocks: UInt64, output_index: int, choice: int
) -> tuple[UInt64, UInt64, UInt64, UInt64]:
    same = np.zeros_like(blocks)
    return blocks, same + np.uint64(output_index), same + np.uint64(choice), same
