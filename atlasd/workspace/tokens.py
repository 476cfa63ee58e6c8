"""Tokenising in steps of a few milliseconds, whatever the tokenizer's speed."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable

Tokenize = Callable[[list[str]], list[list[int]]]
"""``Tokenizer.encode_batch``; called on the indexing thread with small pieces."""

STEP_S = 0.003
_SMALLEST, _LARGEST = 1 << 10, 1 << 17


class StepSize:
    """How many characters take ``STEP_S``, learned from the steps so far."""

    def __init__(self) -> None:
        self._rate = 1_000_000.0  # characters a second

    @property
    def characters(self) -> int:
        return int(min(_LARGEST, max(_SMALLEST, self._rate * STEP_S)))

    def observe(self, characters: int, seconds: float) -> None:
        if characters >= _SMALLEST // 2 and seconds > 0:
            self._rate += 0.2 * (characters / seconds - self._rate)


def pack(tokens: list[int]) -> bytes:
    """Tokens as raw little-endian int32."""
    packed = array("i", tokens)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()
