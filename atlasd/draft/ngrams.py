"""Hash tables from the last n tokens to the positions where they stood, newest first.

One table per order n. A table is an array of heads (slot to newest position) and an array parallel
to the token arena that links each position to the one before it in the same slot. Keys are not
stored: whoever walks a chain compares the tokens themselves, so collisions cost time, never truth.

Tables grow a few slots at a time, with the text (linear hashing, Litwin 1980): a request never
waits for a large one to be made anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from atlasd.draft.drafter import Int32

UInt64 = npt.NDArray[np.uint64]

ORDERS = (3, 6, 12, 24)
LONGEST = ORDERS[-1]

_MASK64 = (1 << 64) - 1
_SPREAD = 0x9E3779B97F4A7C15
_BASE = 0xD1342543DE82EF95
_MIX = 0xBF58476D1CE4E5B9
_BASE_POWER = tuple(pow(_BASE, order, 1 << 64) for order in ORDERS)
_BATCH = 1 << 16
_LONGEST_WALK = 256
_GROWN = 1 << 13
FIRST_SLOTS = 1 << 16

WALK = 24
"""Places of a chain that are looked at."""


def extend_prefix_hashes(prefix: list[int], tokens: Sequence[int]) -> None:
    """Append to ``prefix`` (which starts with 0) the polynomial hash of each longer prefix."""
    value = prefix[-1]
    for token in tokens:
        value = (value * _BASE + (token + 1) * _SPREAD) & _MASK64
        prefix.append(value)


def key_of(prefix: list[int], order_index: int) -> int:
    """The 32-bit key of the last ``ORDERS[order_index]`` tokens that ``prefix`` was fed."""
    value = prefix[-1] - prefix[-1 - ORDERS[order_index]] * _BASE_POWER[order_index]
    value &= _MASK64
    value = ((value ^ (value >> 29)) * _MIX) & _MASK64
    return value >> 32


def keys_of(tokens: Int32) -> list[UInt64]:
    """Per order, the keys ending at each index of ``tokens``; the first order-1 are meaningless.

    Doubling: the hash of 2n tokens is that of the last n plus base^n times that of the n before.
    """
    spread = (tokens.astype(np.uint64) + np.uint64(1)) * np.uint64(_SPREAD)
    value = spread.copy()
    value[1:] += spread[:-1] * np.uint64(_BASE)
    value[2:] += spread[:-2] * np.uint64(_BASE * _BASE & _MASK64)
    keys = []
    for index, order in enumerate(ORDERS):
        mixed = value ^ (value >> np.uint64(29))
        mixed *= np.uint64(_MIX)
        mixed >>= np.uint64(32)
        keys.append(mixed)
        if order != LONGEST:
            longer = value.copy()
            longer[order:] += value[:-order] * np.uint64(_BASE_POWER[index])
            value = longer
    return keys


class NgramTable:
    """Chains of one order over an arena of ``capacity`` positions.

    ``links[position]`` is the next older position in the same slot, or -1.
    """

    def __init__(self, order: int, capacity: int, bits: int = 16) -> None:
        self.order = order
        # Large and untouched: the system commits pages of it as positions come into use.
        self.previous = np.empty(capacity, np.int32)
        self.links = self.previous.data
        self._room = np.empty(max(capacity, 1 << bits), np.int32)
        self.set_heads(np.full(1 << bits, -1, np.int32))

    def set_heads(self, heads: Int32) -> None:
        """Begin with these heads."""
        if len(heads) > len(self._room):
            self._room = np.empty(len(heads), np.int32)
        self._room[: len(heads)] = heads
        self._use(len(heads))

    def _use(self, slots: int) -> None:
        self.heads = self._room[:slots]
        self._head_view = self.heads.data
        self._low = (1 << (slots - 1).bit_length()) - 1

    @property
    def mask(self) -> int:
        """What leaves a key's slot, or the one that slot is still part of; the number of slots in
        the 32 bits above. So ``text_keys.h`` reads it."""
        return len(self.heads) << 32 | self._low

    def reserve(self, positions: int) -> None:
        """Keep at most one position per slot on average, or as many slots as there is room for.

        Each new slot begins with the chain of the slot whose keys it takes over, and what comes
        later goes to the right one. Strangers in old chains are passed over like any collision.
        """
        slots = len(self.heads)
        # Not for every few positions: who reads the arrays elsewhere has to be told each time.
        wanted = min(positions + _GROWN, len(self._room)) if positions > slots else slots
        while slots < wanted:
            half = 1 << (slots.bit_length() - 1)
            more = min(wanted, 2 * half) - slots
            self._room[slots : slots + more] = self._room[slots - half : slots - half + more]
            slots += more
            self._use(slots)

    def slots_of(self, keys: UInt64) -> npt.NDArray[np.int64]:
        """Where keys belong."""
        slots = (keys & np.uint64(self._low)).astype(np.int64)
        slots[slots >= len(self.heads)] &= self._low >> 1
        return slots

    def _slot(self, key: int) -> int:
        slot = key & self._low
        return slot if slot < len(self._head_view) else slot & self._low >> 1

    def insert(self, key: int, position: int) -> None:
        """Make ``position`` the newest of its key."""
        slot = self._slot(key)
        head = self._head_view[slot]
        if head != position:  # a re-used place that is the newest already keeps its chain
            self.links[position] = head
            self._head_view[slot] = position

    def insert_many(self, keys: UInt64, first: int) -> None:
        """Insert positions ``first``, ``first + 1``, … with these keys, in this order."""
        for begin in range(0, len(keys), _BATCH):
            self._insert_batch(keys[begin : begin + _BATCH], first + begin)

    def _insert_batch(self, keys: UInt64, first: int) -> None:
        count = len(keys)
        packed = self.slots_of(keys).astype(np.uint64) << np.uint64(32)
        packed |= np.arange(count, dtype=np.uint64)
        packed.sort()
        slots = (packed >> np.uint64(32)).astype(np.int64)
        positions = packed.astype(np.uint32).astype(np.int32)  # the low half
        positions += np.int32(first)
        previous = np.empty(count, np.int32)
        previous[1:] = positions[:-1]
        starts = np.empty(count, bool)
        starts[0] = True
        np.not_equal(slots[1:], slots[:-1], out=starts[1:])
        heads, firsts = self.heads[slots[starts]], positions[starts]
        # A re-used place that is the newest of its slot already keeps its chain.
        previous[starts] = np.where(heads == firsts, self.previous[firsts], heads)
        self.previous[positions] = previous
        ends = np.empty(count, bool)
        ends[-1] = True
        ends[:-1] = starts[1:]
        self.heads[slots[ends]] = positions[ends]

    def unlink(self, keys: UInt64, start: int, stop: int) -> None:
        """Take positions [start, stop), which have these keys, out of their chains, so that what is
        older is still reached when they are used again.

        Followed as far as look-ups go: what lies deeper is out of reach already. Slots that began
        with the same chain when the table last doubled are followed as well.
        """
        quarter = max((self._low + 1) // 4, FIRST_SLOTS)
        slots = np.unique(keys & np.uint64(quarter - 1)).astype(np.int64)
        slots = np.concatenate([slots + at for at in range(0, len(self.heads), quarter)])
        slots = slots[slots < len(self.heads)]
        at = self.heads[slots].astype(np.int64)
        before = np.full(len(slots), -1, np.int64)
        skipped = np.zeros(len(slots), bool)
        walked = np.zeros(len(slots), np.int64)
        for _ in range(_LONGEST_WALK):
            dead = (at >= start) & (at < stop)
            closing = skipped & ~dead
            if closing.any():
                first = closing & (before < 0)
                self.heads[slots[first]] = at[first]
                inner = closing & (before >= 0)
                self.previous[before[inner]] = at[inner]
            alive = at >= 0
            skipped = dead
            before = np.where(dead, before, at)
            walked += ~dead
            going = alive & (dead | (walked < WALK))
            if not going.any():
                return
            if not going.all():
                slots, at, before = slots[going], at[going], before[going]
                skipped, walked = skipped[going], walked[going]
            at = self.previous[at].astype(np.int64)

    def newest(self, key: int) -> int:
        """The newest position in the key's slot, or -1."""
        return self._head_view[self._slot(key)]
