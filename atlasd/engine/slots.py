"""Which slot holds which prompt, and how much of it a new prompt may reuse.

Exactness decides what is reusable: positions that were prefilled in whole chunks. What decoding
wrote has other bits than prefill would give, except where the decoder says that there is no
difference (``prefill_chunk`` 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]

LENDING = 4
"""Free slots among which one that holds something may be lent; with fewer, each of them may hold
what the next request begins with."""

_NOTHING: Int32 = np.zeros(0, dtype=np.int32)


@dataclass
class _Slot:
    tokens: Int32 = field(default_factory=lambda: _NOTHING)
    """What the slot holds, or is about to hold while a stream prefills it."""
    written: int = 0
    """Positions [0, written) hold the keys and values of ``tokens``, in reusable bits."""
    busy: bool = False
    used: int = 0
    """When it was last given or given back, on a counter."""


@dataclass(frozen=True)
class Place:
    """A slot for a stream, and how many positions of its prompt are already there."""

    slot: int
    reused: int


class Slots:
    """Slots of one decoder. ``copy`` is its ``copy_prefix``."""

    def __init__(
        self,
        count: int,
        slot_tokens: int,
        chunk: int,
        copy: Callable[[int, int, int], None],
    ) -> None:
        self.slot_tokens = slot_tokens
        self._chunk = chunk
        self._copy = copy
        self._slots = [_Slot() for _ in range(count)]
        self._clock = 0

    @property
    def free(self) -> int:
        """Slots no stream is in."""
        return sum(not slot.busy for slot in self._slots)

    def reusable(self, tokens: Int32, limit: int) -> int:
        """Positions of ``tokens`` that some slot holds, at most ``limit``, whole chunks only."""
        return max(self._shared(slot, tokens, limit) for slot in self._slots)

    def acquire(self, tokens: Int32, limit: int) -> Place | None:
        """A slot for a stream that will prefill ``tokens``; None if all are busy.

        At most ``limit`` positions are reused. The longest common prefix over all slots is used:
        in place where the slot is free and holds little else, by copying it otherwise. The slot
        given up is the one that was used least recently.
        """
        free = [index for index, slot in enumerate(self._slots) if not slot.busy]
        if not free:
            return None
        shared = [self._shared(slot, tokens, limit) for slot in self._slots]
        best = max(range(len(shared)), key=lambda i: (shared[i], not self._slots[i].busy))
        target, reused = min(free, key=self._worth), shared[best]
        if reused and not self._slots[best].busy and 2 * reused >= self._slots[best].written:
            target = best
        elif reused > shared[target]:
            self._copy(best, target, reused)
        else:
            reused = shared[target]
        slot = self._slots[target]
        slot.tokens, slot.written, slot.busy = tokens, reused, True
        self._touch(slot)
        return Place(target, reused)

    def wrote(self, index: int, length: int) -> None:
        """Positions [0, length) of the stream's tokens are prefilled now."""
        slot = self._slots[index]
        slot.written = max(slot.written, length // self._chunk * self._chunk)

    def release(self, index: int, tokens: Int32, written: int) -> None:
        """The stream has left. ``tokens`` are its own, ``written`` how many positions hold their
        keys and values; what decoding wrote is kept only where it has the bits of prefill."""
        slot = self._slots[index]
        if self._chunk == 1:
            slot.tokens, slot.written = tokens, written
        slot.busy = False
        self._touch(slot)

    def unread(self, rows: int) -> tuple[int, int] | None:
        """A free slot and a position in it from where so many positions hold nothing of use."""
        for index, slot in enumerate(self._slots):
            if not slot.busy and slot.written + rows <= self.slot_tokens:
                return index, slot.written
        return None

    def lend(self) -> int | None:
        """A free slot to write to, until a stream takes it (``clock`` has moved on then); None if
        there is none to spare. An empty one, or the one used least recently among several."""
        free = [index for index, slot in enumerate(self._slots) if not slot.busy]
        if not free:
            return None
        index = min(free, key=self._worth)
        slot = self._slots[index]
        if slot.written and len(free) < LENDING:
            return None
        slot.tokens, slot.written, slot.used = _NOTHING, 0, 0
        return index

    @property
    def clock(self) -> int:
        """Moves whenever a stream takes or leaves a slot."""
        return self._clock

    def forget(self) -> None:
        """Nothing that free slots hold may be reused any more."""
        for slot in self._slots:
            if not slot.busy:
                slot.tokens, slot.written, slot.used = _NOTHING, 0, 0

    def check_integrity(self) -> None:
        """Raise AssertionError if the bookkeeping contradicts itself."""
        for slot in self._slots:
            assert 0 <= slot.written <= len(slot.tokens) <= self.slot_tokens
            assert slot.written % self._chunk == 0
            assert slot.used <= self._clock
        used = [slot.used for slot in self._slots if slot.used]
        assert len(used) == len(set(used))

    def _shared(self, slot: _Slot, tokens: Int32, limit: int) -> int:
        most = min(slot.written, len(tokens), limit)
        if most <= 0:
            return 0
        differs = slot.tokens[:most] != tokens[:most]
        first = int(differs.argmax())
        common = first if differs[first] else most
        return common // self._chunk * self._chunk

    def _worth(self, index: int) -> tuple[bool, int]:
        slot = self._slots[index]
        return slot.written > 0, slot.used

    def _touch(self, slot: _Slot) -> None:
        self._clock += 1
        slot.used = self._clock
