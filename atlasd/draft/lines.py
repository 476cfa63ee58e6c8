"""Successors by line: what code is laid out by, and the last two tokens do not tell.

At a line's start the context is how the two lines before began and how the last one ended: that
says how deep the next is indented. Everywhere it is how the line began and its last token.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np

from atlasd.draft.drafter import Int32
from atlasd.draft.successors import (
    KINDS,
    HashedSuccessors,
    Int64,
    UInt16,
    slot_of,
    slots_of,
)

_APART = 0x85EBCA6B
"""Keeps the two sorts of contexts apart."""

LINE_KINDS = 2 * KINDS
"""Kinds of votes: by the line so far, then at a line's start."""


@dataclass(slots=True)
class Line:
    """Where a text stands in its lines."""

    first: int = -1
    """The token that this line began with; at a line's start that of the line before."""
    before: int = -1
    """The same of the line before that one."""
    fresh: bool = True
    """At a line's start."""


class Lines:
    """Likely successors by ``Line`` and the last token. Without ``ends``, the tokens that end a
    line, it knows nothing and costs nothing."""

    def __init__(self, vocab_size: int, ends: Sequence[int] = ()) -> None:
        self.table = HashedSuccessors()
        self.ends = np.zeros(vocab_size, np.uint8)
        self.ends[list(ends)] = 1
        self.known = bool(self.ends.any())
        self._ends_at = self.ends.data

    def push(self, line: Line, token: int) -> None:
        """The text goes on with ``token``."""
        if line.fresh:
            line.before, line.first = line.first, token
        line.fresh = self._ends_at[token] != 0

    def after(self, line: Line, tokens: list[int]) -> Line:
        """Where a text that stands at ``line`` does behind ``tokens``."""
        line = copy(line)
        for token in tokens:
            self.push(line, token)
        return line

    def votes(self, line: Line, last: int) -> list[tuple[int, int]]:
        """What may follow: (token, kind of vote)."""
        votes: list[tuple[int, int]] = []
        if self.known:
            for kind, (slot, tag) in enumerate(_contexts(line, last)):
                if self.table.tag_at[slot] == tag:
                    votes += self.table.votes(slot, kind * KINDS)
        return votes

    def begin(self, tokens: Int32, learn: bool) -> Line:
        """Where a prompt's end stands. With ``learn`` what followed what in it is the latest."""
        line = Line()
        for token in tokens.tolist():
            self.push(line, token)
        if learn and self.known and len(tokens) > 2:
            slots, tags, behind = self._contexts_in(tokens)
            self.table.claim_many(slots, tags)
            self.table.latest[slots] = tokens[behind]
        return line

    def add(self, tokens: Int32) -> None:
        """Learn from a text nobody decoded."""
        if self.known and len(tokens) > 1:
            slots, tags, behind = self._contexts_in(tokens)
            self.table.claim_many(slots, tags)
            self.table.note_many(slots, tokens[behind])

    def add_choices(self, read: Int32, chosen: Int32) -> None:
        """Learn what the target would say: ``chosen`` [n] follow all but the first of ``read``."""
        if self.known and len(read) > 1:
            slots, tags, behind = self._contexts_in(np.append(read, read[:1]))
            later = behind > 1
            slots, tags = slots[later], tags[later]
            self.table.claim_many(slots, tags)
            self.table.note_many(slots, chosen[behind[later] - 2])

    def observe(self, line: Line, last: int, tokens: list[int], learn: bool) -> None:
        """``tokens`` were verified behind ``last``, where the text stood at ``line``, which goes
        on with them; a negative ``last``: there was none."""
        for token in tokens:
            if learn and self.known and last >= 0:
                for slot, tag in _contexts(line, last):
                    self.table.claim(slot, tag)
                    self.table.note(slot, token)
            self.push(line, token)
            last = token

    def _contexts_in(self, tokens: Int32) -> tuple[Int64, UInt16, Int64]:
        """Slots and tags of all contexts in a text, in its order, and the index of the token that
        followed each."""
        count = len(tokens)
        at = np.arange(count)
        ended = self.ends[tokens] != 0
        begins = np.empty(count, bool)
        begins[0], begins[1:] = True, ended[:-1]
        start = np.maximum.accumulate(np.where(begins, at, 0))
        first = tokens[start].astype(np.int64)
        begun = start > 0
        before = np.where(begun, first[start - begun], -1)
        ends = np.flatnonzero(ended[:-1])
        which = np.concatenate([at[:-1], ends])
        one = np.concatenate([first[:-1], first[ends] + (before[ends] + 2) * _APART])
        order = np.argsort(which, kind="stable")
        which = which[order]
        slots, tags = slots_of(one[order], tokens[which].astype(np.int64))
        return slots, tags, which + 1


def _contexts(line: Line, last: int) -> list[tuple[int, int]]:
    """Slots and tags: of the line so far, and at a line's start of the lines before."""
    contexts = [slot_of(line.first, last)]
    if line.fresh:
        contexts.append(slot_of(line.first + (line.before + 2) * _APART, last))
    return contexts
