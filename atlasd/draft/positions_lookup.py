"""Finding the places whose text ends like a stream does, and reading on from there.

``NgramTable`` chains lead from the last 3, 6, 12 and 24 tokens to the places where they stood; a
place is extended backwards to its true match length. What is stale is noticed when it is met.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from atlasd.draft.arena import Arena
from atlasd.draft.drafter import Int32
from atlasd.draft.ngrams import ORDERS, WALK, NgramTable, key_of
from atlasd.draft.segments import Run, Segment

MAX_MATCH = 64
"""Matches are measured up to this many tokens; so much text is repeated before an edit."""

_CANDIDATES = 6
_ENOUGH = 3


class Match(NamedTuple):
    """A place whose last tokens are the context's last ``length`` tokens."""

    length: int
    position: int
    segment: Segment


class Context(NamedTuple):
    """The end of a stream as lookups want it."""

    packed: int
    """The last ``length`` tokens as one little-endian number, newest in the highest 32 bits."""
    length: int
    last: int
    prefix: list[int]
    """Prefix hashes of at least the last 24 tokens (fewer where the stream is shorter)."""


def context_of(tokens: list[int], prefix: list[int]) -> Context:
    """The context that ``tokens`` end in."""
    tail = array("i", tokens[-MAX_MATCH:])
    return Context(int.from_bytes(tail.tobytes(), "little"), len(tail), tokens[-1], prefix)


class PositionLookup:
    """The arena's arrays and the segments that lie there, to be read. Not thread-safe."""

    def __init__(self, capacity: int) -> None:
        """``capacity``: positions of the arena."""
        self.arena = Arena(capacity)
        self.tokens = np.empty(capacity, np.int32)
        self.run_of = np.empty(capacity, np.int32)
        self.tables = [NgramTable(order, capacity) for order in ORDERS]
        self.segments: dict[tuple[str | None, str], Segment] = {}
        self.runs: list[Run | None] = []
        for touched in (self.tokens, self.run_of, *(table.previous for table in self.tables)):
            # Here and not in the first stream: the system may commit megabytes at a time.
            touched[:1] = 0
        # Single entries are read and written several times faster through these.
        self._token_view = self.tokens.data
        self._token_bytes = self.tokens.data.cast("B")
        self._run_view = self.run_of.data

    def __iter__(self) -> Iterator[Segment]:
        return iter(self.segments.values())

    def holds(self, segment: Segment) -> bool:
        """Whether the segment is still known by its name."""
        return self.segments.get((segment.repository, segment.name)) is segment

    def run_at(self, position: int) -> int:
        """The number of the run that an arena position belongs to."""
        return int(self._run_view[position])

    def read(self, segment: Segment) -> Int32:
        """The segment's text."""
        parts = [self.tokens[piece.start : piece.stop] for piece in segment.pieces]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def ends(self, segment: Segment, size: int) -> tuple[bytes, bytes]:
        """The first and the last tokens of a segment, at most ``size`` of each, as far as its first
        and its last piece say; as they lie in memory."""
        if not segment.pieces:
            return b"", b""
        first, last = segment.pieces[0], segment.pieces[-1]
        head = self._token_view[first.start : min(first.stop, first.start + size)]
        tail = self._token_view[max(last.start, last.stop - size) : last.stop]
        return head.tobytes(), tail.tobytes()

    def read_tail(self, segment: Segment, count: int) -> Int32:
        """The segment's last ``count`` tokens."""
        pieces = segment.clip(max(0, segment.length - count), segment.length)
        parts = [self.tokens[piece.start : piece.stop] for piece in pieces]
        return np.concatenate(parts) if parts else np.empty(0, np.int32)

    def bytes_used(self) -> int:
        """Bytes that hold something, tables included."""
        per_position = 8 + 4 * len(self.tables)
        return self.arena.used * per_position + sum(t.heads.nbytes for t in self.tables)

    def find(self, context: Context, minimum: int = ORDERS[0]) -> list[Match]:
        """The most recent live places that agree with the context on at least ``minimum`` tokens:
        those of the longest order that has any, newest first, then those of shorter orders while
        there are few."""
        found: list[Match] = []
        longest = min(context.length, len(context.prefix) - 1)
        tokens, last = self._token_view, context.last
        for index in range(len(ORDERS) - 1, -1, -1):
            order = ORDERS[index]
            if order > longest:
                continue
            if order < minimum:
                break
            table = self.tables[index]
            position = table.newest(key_of(context.prefix, index))
            if position < 0:
                continue
            links = table.links
            for step in range(WALK):
                if tokens[position] == last:
                    match = self.match_at(position, context)
                    if match is not None and match.length >= order and match not in found:
                        found.append(match)
                        if len(found) == _CANDIDATES:
                            return found
                older = links[position]
                # A re-used place can link to a later one; a few such jumps, but no endless ring.
                if older < 0 or (older >= position and step > 2):
                    break
                position = older
            if len(found) >= _ENOUGH:
                break
        return found

    def match_at(self, position: int, context: Context) -> Match | None:
        """How far back the text at a live place that has a continuation agrees with the context;
        None where it is stale, ends there, or differs in the last token."""
        if self._token_view[position] != context.last:
            return None
        run = self.runs[self._run_view[position]]
        if run is None:
            return None
        segment = run.segment
        index = segment.piece_at(position)
        if index < 0 or (
            index == len(segment.pieces) - 1 and position + 1 == segment.pieces[index].stop
        ):
            return None
        count = min(context.length, position + 1 - run.start, MAX_MATCH)
        raw = self._token_bytes[4 * (position + 1 - count) : 4 * (position + 1)]
        packed = context.packed >> (32 * (context.length - count))
        differing = int.from_bytes(raw, "little") ^ packed
        if differing:
            count -= (differing.bit_length() + 31) // 32
        return Match(count, position, segment)

    def continuation(self, segment: Segment, position: int, limit: int) -> list[int]:
        """At most ``limit`` tokens of the segment that follow an arena position of it."""
        index = segment.piece_at(position)
        if index < 0:
            return []
        stop = segment.pieces[index].stop
        first = position + 1
        if stop - first >= limit:
            return self._token_view[first : first + limit].tolist()
        tokens = self._token_view[first:stop].tolist()
        for piece in segment.pieces[index + 1 :]:
            missing = limit - len(tokens)
            if missing <= 0:
                break
            tokens += self._token_view[
                piece.start : min(piece.stop, piece.start + missing)
            ].tolist()
        return tokens

    def advance(self, segment: Segment, position: int, count: int) -> int:
        """The arena position ``count`` tokens after ``position`` in reading order, or -1."""
        index = segment.piece_at(position)
        while index >= 0:
            room = segment.pieces[index].stop - 1 - position
            if count <= room:
                return position + count
            count -= room + 1
            index += 1
            if index >= len(segment.pieces):
                return -1
            position = segment.pieces[index].start
        return -1
