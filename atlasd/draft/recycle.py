"""Drafting from what followed the last one or two tokens: Token Recycling (Luo et al. 2024), in
chains, with the latest and the most frequent successor of each context; and from what lines are
like (``lines``).

The target's first choice at every verified row is kept, rejected rows included. One-token contexts
are indexed by id, two-token contexts by hash with a tag.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atlasd.draft.drafter import Int32, StreamView, VerifiedRows
from atlasd.draft.lines import LINE_KINDS, Line, Lines
from atlasd.draft.successors import (
    KINDS,
    HashedSuccessors,
    Int64,
    Successors,
    UInt16,
    slot_of,
    slots_of,
)

RECENT = 128
"""Of a prompt, the last tokens that are read: reading is paid for before the first draft, and what
came earlier changes hardly a draft."""

_REJECTED = 8
"""Rows behind a rejection that are learned from: farther ones read too strange a text."""

VOTE_KINDS = 2 * KINDS + LINE_KINDS
"""Kinds of votes: of the pair, of the single token, of its place in the lines."""


class Recycle:
    """Likely successors by the last one or two tokens."""

    def __init__(self, vocab_size: int, line_ends: Sequence[int] = ()) -> None:
        """``line_ends``: the tokens that end a line; empty: not known."""
        self.vocab_size = vocab_size
        self.single = Successors(vocab_size)
        self.pair = HashedSuccessors()
        self.lines = Lines(vocab_size, line_ends)
        self._line_of: dict[int, Line] = {}

    def begin(self, stream: StreamView) -> None:
        tokens = np.array(stream.last(RECENT), np.int32)
        self._line_of[stream.stream] = self.lines.begin(tokens, stream.learn)
        if not stream.learn or len(tokens) < 3:
            return
        self.single.latest[tokens[:-1]] = tokens[1:]
        slots, tags = _pair_slots(tokens)
        self.pair.claim_many(slots, tags)
        self.pair.latest[slots] = tokens[2:]

    def add(self, tokens: Int32) -> None:
        """Learn from a text nobody decoded: a file of the repository."""
        if len(tokens) < 3:
            return
        self.single.note_many(tokens[:-1].astype(np.int64), tokens[1:])
        slots, tags = _pair_slots(tokens)
        self.pair.claim_many(slots, tags)
        self.pair.note_many(slots, tokens[2:])
        self.lines.add(tokens)

    def add_choices(self, read: Int32, chosen: Int32) -> None:
        """Learn what the target would say after a text's tokens: ``chosen`` [n] follow all but
        the first of ``read`` [n + 1]."""
        self.single.note_many(read[1:].astype(np.int64), chosen)
        slots, tags = _pair_slots(np.append(read, read[:1]))
        self.pair.claim_many(slots, tags)
        self.pair.note_many(slots, chosen)
        self.lines.add_choices(read, chosen)

    def line_after(self, stream: StreamView, after: list[int]) -> Line:
        """Where the stream stands in its lines behind ``after``."""
        return self.lines.after(self._line_of[stream.stream], after)

    def votes(self, one: int, two: int, line: Line | None = None) -> list[tuple[int, int]]:
        """What may follow the tokens ``one, two``: (token, kind of vote), the best sort first."""
        votes: list[tuple[int, int]] = []
        slot, tag = slot_of(one, two)
        if self.pair.tag_at[slot] == tag:
            votes += self.pair.votes(slot, 0)
        votes += self.single.votes(two, KINDS)
        if line is not None:
            votes += [(token, 2 * KINDS + kind) for token, kind in self.lines.votes(line, two)]
        return votes

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        text = stream.last(len(tokens) + 2)
        if (line := self._line_of.get(stream.stream)) is not None:
            last = text[-len(tokens) - 1] if len(text) > len(tokens) else -1
            self.lines.observe(line, last, tokens, stream.learn)
        if not stream.learn:
            return
        for at in range(2, len(text)):
            two, token = text[at - 1], text[at]
            self.single.note(two, token)
            slot, tag = slot_of(text[at - 2], two)
            self.pair.claim(slot, tag)
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
                slot, tag = slot_of(after[at - 1], after[at])
                for _ in range(2):  # one against the vote of what was drawn, one of its own
                    if self.pair.tag_at[slot] == tag:
                        self.pair.vote(slot, best[at])
                    self.single.vote(after[at], best[at])
        for at in range(verified, min(len(after), verified + _REJECTED)):
            self.single.latest_at[after[at]] = best[at]
            slot, tag = slot_of(after[at - 1], after[at])
            # A pair that was seen in a real text is not given up for one that was not.
            if self.pair.tag_at[slot] != tag and not self.pair.count_at[slot]:
                self.pair.tag_at[slot] = tag
                self.pair.usual_at[slot] = -1
            if self.pair.tag_at[slot] == tag:
                self.pair.latest_at[slot] = best[at]

    def end(self, stream: StreamView) -> None:
        self._line_of.pop(stream.stream, None)

    def fade(self) -> None:
        """The target has changed: what it chose before keeps half of its votes."""
        for table in self._tables:
            table.fade()

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return sum(table.nbytes for table in self._tables) + self.lines.ends.nbytes

    def clear(self) -> None:
        """Forget everything."""
        for table in self._tables:
            table.clear()

    @property
    def _tables(self) -> tuple[Successors, ...]:
        return self.single, self.pair, self.lines.table


def _pair_slots(tokens: Int32) -> tuple[Int64, UInt16]:
    """Slot and tag of each pair of neighbours but the last."""
    return slots_of(tokens[:-2].astype(np.int64), tokens[1:-1].astype(np.int64))
