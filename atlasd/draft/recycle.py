"""Drafting from what followed the last one or two tokens: Token Recycling (Luo et al. 2024), in
chains, with the latest and the most frequent successor of each context.

The target's first choice at every verified row is kept, rejected rows included. One-token contexts
are indexed by id, two-token contexts by hash with a tag.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from atlasd.draft.drafter import Int32, StreamView, VerifiedRows

_PAIR_BITS = 19
_PAIR_SLOTS = 1 << _PAIR_BITS
_MULTIPLIER = 0x9E3779B1
RECENT = 512
"""Of a prompt, the last tokens that are read: reading is paid for before the first draft, and what
came earlier changes hardly a draft."""

_REJECTED = 8
"""Rows behind a rejection that are learned from: farther ones read too strange a text."""

_COUNT_BUCKET = tuple(min(7, count.bit_length()) for count in range(256))
_PAIR_LATEST, _PAIR_USUAL, _SINGLE_LATEST, _SINGLE_USUAL = 0, 16, 24, 40

VOTE_KINDS = 48
"""Kinds of votes: latest or usual successor, of the pair or of the single token, by count."""

UInt8 = npt.NDArray[np.uint8]


class _Successors:
    """Per context the latest successor, and a majority vote (Boyer and Moore) on the usual one."""

    def __init__(self, contexts: int) -> None:
        self.latest = np.full(contexts, -1, np.int32)
        self.usual = np.full(contexts, -1, np.int32)
        self.count = np.zeros(contexts, np.uint8)
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

    def note_many(self, contexts: npt.NDArray[np.int64], successors: Int32) -> None:
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

    @property
    def nbytes(self) -> int:
        return self.latest.nbytes + self.usual.nbytes + self.count.nbytes


class Recycle:
    """Likely successors by the last one or two tokens."""

    def __init__(self, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        self.single = _Successors(vocab_size)
        self.pair = _Successors(_PAIR_SLOTS)
        self.tags = np.zeros(_PAIR_SLOTS, np.uint16)
        self._tag_at = self.tags.data

    def begin(self, stream: StreamView) -> None:
        tokens = np.array(stream.tokens[-RECENT:], np.int32)
        if len(tokens) < 3:
            return
        self.single.latest[tokens[:-1]] = tokens[1:]
        slots, tags = _pair_slots(tokens)
        self._claim(slots, tags)
        self.pair.latest[slots] = tokens[2:]

    def add(self, tokens: Int32) -> None:
        """Learn from a text nobody decoded: a file of the repository."""
        if len(tokens) < 3:
            return
        self.single.note_many(tokens[:-1].astype(np.int64), tokens[1:])
        slots, tags = _pair_slots(tokens)
        self._claim(slots, tags)
        self.pair.note_many(slots, tokens[2:])

    def add_choices(self, read: Int32, chosen: Int32) -> None:
        """Learn what the target would say after a text's tokens: ``chosen`` [n] follow all but
        the first of ``read`` [n + 1]."""
        self.single.note_many(read[1:].astype(np.int64), chosen)
        slots, tags = _pair_slots(np.append(read, read[:1]))
        self._claim(slots, tags)
        self.pair.note_many(slots, chosen)

    def votes(self, one: int, two: int) -> list[tuple[int, int]]:
        """What may follow the tokens ``one, two``: (token, kind of vote), the best sort first."""
        votes: list[tuple[int, int]] = []
        mixed = (one * _MULTIPLIER + two) * _MULTIPLIER & 0xFFFFFFFF
        slot = mixed >> (32 - _PAIR_BITS)
        if self._tag_at[slot] == ((mixed ^ two) & 0x1FFF | 0x2000):
            table = self.pair
            latest, usual = table.latest_at[slot], table.usual_at[slot]
            count = _COUNT_BUCKET[table.count_at[slot]]
            if latest >= 0:
                votes.append((latest, _PAIR_LATEST + 2 * count + (latest == usual)))
            if usual >= 0 and usual != latest:
                votes.append((usual, _PAIR_USUAL + count))
        table = self.single
        latest, usual = table.latest_at[two], table.usual_at[two]
        count = _COUNT_BUCKET[table.count_at[two]]
        if latest >= 0:
            votes.append((latest, _SINGLE_LATEST + 2 * count + (latest == usual)))
        if usual >= 0 and usual != latest:
            votes.append((usual, _SINGLE_USUAL + count))
        return votes

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        text = stream.tokens[-len(tokens) - 2 :]
        for at in range(2, len(text)):
            two, token = text[at - 1], text[at]
            self.single.note(two, token)
            slot, tag = _pair_slot(text[at - 2], two)
            if self._tag_at[slot] != tag:
                self._tag_at[slot] = tag
                self.pair.count_at[slot] = 0
            self.pair.note(slot, token)
        self.observe_rows(tokens, rows)

    def observe_rows(self, tokens: list[int], rows: VerifiedRows | None) -> None:
        """Learn from the target's first choices at all rows, where they say more than ``tokens``.

        Where the target sampled, its first choice is likelier the next time than what was drawn,
        so it joins the vote. Rows behind the first rejection read a text that will not be, but
        they were paid for, and what the target would have said there is worth as much as any
        other successor.
        """
        if rows is None:
            return
        after, best = rows.after.tolist(), rows.top[:, 0].tolist()
        verified = len(tokens)
        for at in range(1, min(verified, len(after))):
            if best[at] != tokens[at]:
                slot, tag = _pair_slot(after[at - 1], after[at])
                for _ in range(2):  # one against the vote of what was drawn, one of its own
                    if self._tag_at[slot] == tag:
                        self.pair.vote(slot, best[at])
                    self.single.vote(after[at], best[at])
        for at in range(verified, min(len(after), verified + _REJECTED)):
            self.single.latest_at[after[at]] = best[at]
            slot, tag = _pair_slot(after[at - 1], after[at])
            # A pair that was seen in a real text is not given up for one that was not.
            if self._tag_at[slot] != tag and not self.pair.count_at[slot]:
                self._tag_at[slot] = tag
                self.pair.usual_at[slot] = -1
            if self._tag_at[slot] == tag:
                self.pair.latest_at[slot] = best[at]

    def fade(self) -> None:
        """The target has changed: what it chose before keeps half of its votes."""
        for table in (self.single, self.pair):
            table.count >>= 1

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return self.single.nbytes + self.pair.nbytes + self.tags.nbytes

    def clear(self) -> None:
        """Forget everything."""
        for table in (self.single, self.pair):
            table.latest.fill(-1)
            table.usual.fill(-1)
            table.count.fill(0)
        self.tags.fill(0)

    def _claim(self, slots: npt.NDArray[np.int64], tags: npt.NDArray[np.uint16]) -> None:
        """Take over slots that held other pairs."""
        other = slots[self.tags[slots] != tags]
        self.pair.count[other] = 0
        self.pair.usual[other] = -1
        self.tags[slots] = tags


def _pair_slot(one: int, two: int) -> tuple[int, int]:
    mixed = (one * _MULTIPLIER + two) * _MULTIPLIER & 0xFFFFFFFF
    return mixed >> (32 - _PAIR_BITS), (mixed ^ two) & 0x1FFF | 0x2000


def _pair_slots(tokens: Int32) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint16]]:
    """Slot and tag of each pair of neighbours but the last."""
    one, two = tokens[:-2].astype(np.int64), tokens[1:-1].astype(np.int64)
    mixed = ((one * _MULTIPLIER + two) & 0xFFFFFFFF) * _MULTIPLIER & 0xFFFFFFFF
    tags = (mixed ^ two) & 0x1FFF | 0x2000
    return mixed >> (32 - _PAIR_BITS), tags.astype(np.uint16)
