"""Choosing tokens in one native call where the CPU kernels load, in numpy elsewhere."""

from __future__ import annotations

import ctypes

import numpy as np
from atlasd_kernels import cpu
from atlasd_kernels.cpu.library import Noise, native

from atlasd.engine.sampling import ChooseRow, Float32, choose_row


def fastest_choose() -> ChooseRow:
    """The fastest way to choose a sampled token on this machine. The two ways differ by the
    rounding of two logarithms, so one of them is used for everything."""
    loads, _ = cpu.available()
    return ChooseNatively() if loads else choose_row


class ChooseNatively:
    """As ``sampling.choose_row``. What a call needs lies ready: a row is chosen at every step, and
    making four arrays for it takes longer than the choice."""

    def __init__(self) -> None:
        self._choose = native().choose
        self._noise = Noise()
        self._token = ctypes.c_int32()
        self._noise_at = ctypes.addressof(self._noise)
        self._token_at = ctypes.addressof(self._token)

    def __call__(
        self, logits: Float32, temperature: float, seed: int, choice: int, index: int
    ) -> int:
        if logits.dtype != np.float32 or not logits.flags.c_contiguous:
            logits = np.ascontiguousarray(logits, np.float32)
        noise, vocab = self._noise, len(logits)
        noise.temperature, noise.seed = temperature, seed
        noise.choice, noise.output_index = choice, index
        address = logits.__array_interface__["data"][0]
        self._choose(address, 1, vocab, vocab, self._noise_at, self._token_at)
        return self._token.value
