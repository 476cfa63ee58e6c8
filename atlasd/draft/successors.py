"""What followed a context: the tables that *recycle* drafts from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atlasd.draft.drafter import Int32

Int64 = npt.NDArray[np.int64]
UInt16 = npt.NDArray[np.uint16]

BITS = 19
MULTIPLIER = 0x9E3779B1

_COUNT_BUCKET = tuple(min(7, count.bit_length()) for count in range(256))
_USUAL = 16
KINDS = 24
"""Kinds of votes of a table: latest or usual successor, by count."""


_FOLLOWED = np.dtype(
    [("latest", np.int32), ("usual", np.int32), ("tag", np.uint16), ("count", np.uint8)],
    align=True,
)
"""``Followed`` in text.h: what is known of a context lies together, since a look-up finds none of
it in a cache."""


class Successors:
    """Per context the latest successor, and a majority vote (Boyer and Moore) on the usual one."""

    def __init__(self, contexts: int) -> None:
        self.followed = np.empty(contexts, _FOLLOWED)
        self.latest, self.usual = self.followed["latest"], self.followed["usual"]
        self.count, self.tags = self.followed["count"], self.followed["tag"]
        """Whose a slot is, where contexts share them."""
        self.clear()
        # Single entries are read and written several times faster through these.
        self.latest_at = self.latest.data
        self.usual_at = self.usual.data
        self.count_at = self.count.data

    def note(self, context: int, successor: int) -> None:
        """``successor`` was chosen after ``context``."""
        self.latest_at[context] = successor
        self.vote(context, successor)

    def vote(self, context: int, successor: int) -> None:
        """``successor`` is likely after ``context``, whatever came there last."""
        count = self.count_at[context]
        if self.usual_at[context] == successor:
            if count < 255:
                self.count_at[context] = count + 1
        elif count == 0:
            self.usual_at[context] = successor
            self.count_at[context] = 1
        else:
            self.count_at[context] = count - 1

    def note_many(self, contexts: Int64, successors: Int32) -> None:
        """A text: its latest successors win, its most frequent ones join the vote."""
        self.latest[contexts] = successors
        pairs = (contexts << 32) | successors.astype(np.int64)
        values, counts = np.unique(pairs, return_counts=True)
        # Ascending by count, so that of each context the most frequent is written last.
        order = np.argsort(counts, kind="stable")
        values, counts = values[order], np.minimum(counts[order], 255).astype(np.uint8)
        where = values >> 32
        best = np.zeros(len(values), bool)
        _, last = np.unique(where[::-1], return_index=True)
        best[len(values) - 1 - last] = True
        where, what, counts = where[best], values[best].astype(np.int32), counts[best]
        same = self.usual[where] == what
        known = self.count[where]
        total = np.minimum(known.astype(np.int32) + counts, 255).astype(np.uint8)
        better = ~same & (counts >= known)
        self.count[where[same]] = total[same]
        self.usual[where[better]] = what[better]
        self.count[where[better]] = counts[better]

    def votes(self, context: int, kinds: int) -> list[tuple[int, int]]:
        """Its successors with the kinds of their votes, which begin at ``kinds``."""
        votes: list[tuple[int, int]] = []
        latest, usual = self.latest_at[context], self.usual_at[context]
        count = _COUNT_BUCKET[self.count_at[context]]
        if latest >= 0:
            votes.append((latest, kinds + 2 * count + (latest == usual)))
        if usual >= 0 and usual != latest:
            votes.append((usual, kinds + _USUAL + count))
        return votes

    def fade(self) -> None:
        """Keep half of the votes."""
        self.count >>= 1

    def clear(self) -> None:
        """Forget everything."""
        self.latest.fill(-1)
        self.usual.fill(-1)
        self.count.fill(0)
        self.tags.fill(0)

    @property
    def nbytes(self) -> int:
        return self.followed.nbytes


class HashedSuccessors(Successors):
    """The same for contexts of two numbers: a slot by their hash, a tag that tells whose it is."""

    def __init__(self) -> None:
        super().__init__(1 << BITS)
        self.tag_at = self.tags.data

    def claim(self, slot: int, tag: int) -> None:
        """Take over a slot that held another context."""
        if self.tag_at[slot] != tag:
            self.tag_at[slot] = tag
            self.count_at[slot] = 0

    def claim_many(self, slots: Int64, tags: UInt16) -> None:
        """The same for many."""
        other = slots[self.tags[slots] != tags]
        self.count[other] = 0
        self.usual[other] = -1
        self.tags[slots] = tags


def slot_of(one: int, two: int) -> tuple[int, int]:
    """Slot and tag of a context."""
    mixed = (one * MULTIPLIER + two) * MULTIPLIER & 0xFFFFFFFF
    return mixed >> (32 - BITS), (mixed ^ two) & 0x1FFF | 0x2000


def slots_of(one: Int64, two: Int64) -> tuple[Int64, UInt16]:
    """The same for many: ``one`` and ``two`` [n]."""
    mixed = (((one & 0xFFFFFFFF) * MULTIPLIER + two) & 0xFFFFFFFF) * MULTIPLIER & 0xFFFFFFFF
    tags = (mixed ^ two) & 0x1FFF | 0x2000
    return mixed >> (32 - BITS), tags.astype(np.uint16)
