"""Tokenising in steps of a few milliseconds, whatever the tokenizer's speed."""

from __future__ import annotations

import os
import sys
import time
from array import array
from collections.abc import Callable
from typing import Protocol

from atlasd.workspace.slices import slices

Tokenize = Callable[[list[str]], list[list[int]]]
"""``Tokenizer.encode_batch``; called on the indexing thread with small pieces."""


class Pack(Protocol):
    """Each text's tokens as raw little-endian int32; ``pause`` is called where that is long."""

    def __call__(self, texts: list[str], pause: Callable[[], None], /) -> list[bytes]: ...


PARALLEL = min(4, os.cpu_count() or 1)
"""Pieces tokenised at once; more threads would take the machine from whoever works at it."""
STEP_S = 0.0015
_SMALLEST, _LARGEST = 1 << 10, 1 << 14
_LONGEST = 2
"""A piece without a good place to cut becomes so many times as long, no longer: in a step of that
length a request still waits less than five milliseconds or little more."""


class StepwiseTokenizer:
    """Cuts texts into pieces, and gives the tokenizer as many characters at a time as it is seen
    to tokenise in ``STEP_S``."""

    def __init__(self, tokenize: Tokenize, key: str, words: Pack | None = None) -> None:
        """``words`` gives the same tokens on one thread, but quicker; see ``wordcache``."""
        self.key = key
        self._at_once = 1 if words else PARALLEL
        self._pack: Pack = words or (lambda texts, _: [pack(ids) for ids in tokenize(texts)])
        self._rate = 1_000_000.0  # characters a second

    @property
    def step_characters(self) -> int:
        return int(min(_LARGEST, max(_SMALLEST, self._rate * STEP_S)))

    def encode(self, texts: list[str], pause: Callable[[], None]) -> list[bytes]:
        """Each text's tokens as raw little-endian int32. Pieces of all texts go together, as many
        at a time as there are threads for; ``pause`` comes before each step and in long ones."""
        size = max(1, self.step_characters // self._at_once)
        pieces = [(at, piece) for at, text in enumerate(texts) for piece in _pieces(text, size)]
        packed: list[list[bytes]] = [[] for _ in texts]
        for start in range(0, len(pieces), self._at_once):
            step = pieces[start : start + self._at_once]
            stretch = _Stretch(pause)
            results = self._pack([piece for _, piece in step], stretch)
            characters = sum(len(piece) for _, piece in step)
            self._observe(characters, stretch.longest())
            for (at, _), tokens in zip(step, results, strict=True):
                packed[at].append(tokens)
        return [b"".join(parts) for parts in packed]

    def _observe(self, characters: int, seconds: float) -> None:
        # A short piece says more about the call than about the speed.
        if characters >= _SMALLEST // 2 and seconds > 0:
            self._rate += 0.2 * (characters / seconds - self._rate)


def _pieces(text: str, size: int) -> list[str]:
    if not text.isascii():
        size = (size + 1) // 2  # words of any script take twice as long to find
    return slices(text, size, _LONGEST * size)


class _Stretch:
    """A pause now and whenever it is called; keeps the longest time between two."""

    def __init__(self, pause: Callable[[], None]) -> None:
        self._pause = pause
        self._longest = 0.0
        self._began = time.perf_counter()
        self()

    def __call__(self) -> None:
        self.longest()
        self._pause()
        self._began = time.perf_counter()

    def longest(self) -> float:
        """Seconds, until now."""
        self._longest = max(self._longest, time.perf_counter() - self._began)
        return self._longest


def pack(tokens: list[int]) -> bytes:
    """Tokens as raw little-endian int32."""
    packed = array("i", tokens)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()
