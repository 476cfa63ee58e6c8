"""Gumbel noise as a pure function of (seed, choice, output index, token id), as everywhere in
atlasd: Philox4x32-10 with key (seed low, seed high) and counter (id // 4, output index, choice, 0).

Word id % 4 of the result, x, gives u = (x // 512 + 0.5) / 2**23 and the noise -log(-log(u)). Only
2**23 values can come out, so they are a table computed once in float64 (32 MiB, which an H100's
L2 cache holds): the noise is that of the reference bit for bit, whatever a device's logarithms are.
"""

# mypy: allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="no-untyped-def,no-any-return,assignment"
from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import torch
import triton
import triton.language as tl
from torch import Tensor

VALUES = 1 << 23


def gumbel_table(device: torch.device | str) -> Tensor:
    """The noise of every x // 512, float32 [2**23]."""
    return torch.from_numpy(_values()).to(device)


@cache
def _values() -> npt.NDArray[np.float32]:
    # numpy's logarithms are the reference's; torch's may differ in the last bit.
    uniform = (np.arange(VALUES, dtype=np.float64) + 0.5) * 2.0**-23
    noise: npt.NDArray[np.float32] = (-np.log(-np.log(uniform))).astype(np.float32)
    return noise


@triton.jit
def philox(block, output_index, choice, key0, key1):
    """Ten rounds over counters (block, output_index, choice, 0); four words of 32 bits."""
    zero = (block * 0).to(tl.uint32)
    a = block.to(tl.uint32)
    b = zero + output_index.to(tl.uint32)
    c = zero + choice.to(tl.uint32)
    d = zero
    k0 = zero + key0.to(tl.uint32)
    k1 = zero + key1.to(tl.uint32)
    for _ in tl.static_range(10):
        first = a.to(tl.uint64) * 0xD2511F53
        second = c.to(tl.uint64) * 0xCD9E8D57
        a = (second >> 32).to(tl.uint32) ^ b ^ k0
        b = second.to(tl.uint32)
        c = (first >> 32).to(tl.uint32) ^ d ^ k1
        d = first.to(tl.uint32)
        k0 = k0 + 0x9E3779B9
        k1 = k1 + 0xBB67AE85
    return a, b, c, d


@triton.jit
def gumbel(table, token, output_index, choice, key0, key1, wanted):
    """Noise of token ids; 0 where it is not ``wanted``."""
    a, b, c, d = philox(token // 4, output_index, choice, key0, key1)
    word = token % 4
    low = tl.where(word == 0, a, b)
    high = tl.where(word == 2, c, d)
    x = tl.where(word < 2, low, high)
    return tl.load(table + (x >> 9).to(tl.int32), mask=wanted, other=0.0)
