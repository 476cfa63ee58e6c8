"""The segmented position index: everything that can be drafted from, found by its last tokens.

Tokens of all segments lie in one arena that is written once per place; an edit adds the changed
window. Making room for them is ``positions_room``'s, finding them ``positions_lookup``'s.
"""

from __future__ import annotations

from collections.abc import Iterator

from atlasd.draft.drafter import Int32
from atlasd.draft.ngrams import extend_prefix_hashes, key_of
from atlasd.draft.positions_lookup import MAX_MATCH
from atlasd.draft.positions_room import PIECE, TAIL, PositionRoom
from atlasd.draft.segments import Piece, Segment, common_prefix

_MAX_PIECES = 32

__all__ = ["PIECE", "PositionIndex"]


class PositionIndex(PositionRoom):
    """What is written of segments, and made findable. Not thread-safe."""

    def put(
        self,
        name: str,
        repository: str | None,
        kind: str,
        tokens: Int32,
        language: str | None = None,
        *,
        grows: bool = False,
    ) -> Segment:
        """Add a segment or replace its text; only the changed window is written. One that
        ``grows`` has room for that behind the window, where that is its end, until ``close``."""
        key = (repository, name)
        segment = self.segments.get(key)
        if segment is None:
            segment = self.segments[key] = Segment(name, repository, kind, language)
        if len(tokens) > self.arena.capacity // 4:
            tokens = tokens[: self.arena.capacity // 4]
        self.clock += 1
        room = TAIL if grows else 0
        if segment.pieces:
            self._edit(segment, tokens, room)
        else:
            segment.updated = self.clock
            self._set_pieces(segment, self._write(segment, tokens, 0, len(tokens), room))
        return segment

    def put_in_pieces(
        self,
        name: str,
        repository: str | None,
        kind: str,
        tokens: Int32,
        language: str | None = None,
    ) -> Iterator[None]:
        """As ``put``, but a long new segment grows piece by piece; other work may come between.
        Ends early where the segment is changed or dropped meanwhile."""
        known = self.segments.get((repository, name))
        if known is not None and known.pieces:
            self.put(name, repository, kind, tokens, language)
            return
        tokens = tokens[: self.arena.capacity // 4]
        yield from self._make_room(min(len(tokens), PIECE))
        segment = self.put(name, repository, kind, tokens[:PIECE], language)
        generation = segment.generation
        for begin in range(PIECE, len(tokens), PIECE):
            yield
            yield from self._make_room(PIECE, segment)
            if not self.holds(segment) or segment.generation != generation:
                return
            more = self._write(segment, tokens, begin, min(begin + PIECE, len(tokens)))
            if segment.generation == generation:  # else it was evicted to make room for itself
                self._set_pieces(segment, segment.pieces + more)

    def append(self, segment: Segment, tokens: list[int], prefix: list[int]) -> None:
        """Let a segment grow by verified tokens; ``prefix`` are its stream's prefix hashes, to
        which the new tokens' are appended."""
        for token in tokens:
            extend_prefix_hashes(prefix, (token,))
            piece = segment.pieces[-1] if segment.grows else self.grow(segment)
            position = piece.stop
            self._token_view[position] = token
            piece.stop += 1
            segment.length += 1
            known = len(prefix) - 1
            for index, table in enumerate(self.tables):
                if known < table.order:
                    break
                table.insert(key_of(prefix, index), position)

    def close(self, segment: Segment) -> None:
        """The segment will not grow any more: hand back what was reserved for that."""
        if segment.grows:
            run, piece = segment.runs[-1], segment.pieces[-1]
            self.arena.give(piece.stop, run.stop)
            run.stop = piece.stop

    def grow(self, segment: Segment) -> Piece:
        """A fresh last piece for an appending segment, with the text before it repeated."""
        context = self.read_tail(segment, MAX_MATCH)
        size = len(context) + TAIL
        start = self._take(size, segment)
        assert start is not None, "a tail is small enough to be made room for"
        self._reserve()
        self._new_run(segment, start, start + size)
        self.tokens[start : start + len(context)] = context
        piece = Piece(start + len(context), start + len(context))
        self._set_pieces(segment, [*segment.pieces, piece])
        return piece

    def _edit(self, segment: Segment, tokens: Int32, room: int) -> None:
        old = self.read(segment)
        prefix = common_prefix(old, tokens)
        shorter = min(len(old), len(tokens)) - prefix
        suffix = common_prefix(old[::-1][:shorter], tokens[::-1][:shorter])
        if prefix == len(old) == len(tokens):
            return
        segment.generation += 1
        segment.updated = self.clock
        # What follows the window is repeated for MAX_MATCH tokens: so the text before any live
        # position is, as far back as matches are measured, the text of this version.
        kept = max(0, suffix - MAX_MATCH)
        held = sum(run.stop - run.start for run in segment.runs)
        if len(segment.pieces) > _MAX_PIECES or held > 2 * len(tokens) + 4096:
            self._clear(segment)
            self._set_pieces(segment, self._write(segment, tokens, 0, len(tokens), room))
            return
        before = segment.clip(0, prefix)
        after = segment.clip(len(old) - kept, len(old))
        end = len(tokens) - kept
        window = self._write(segment, tokens, prefix, end, 0 if kept else room)
        self._set_pieces(segment, before + window + after)

    def _write(
        self, segment: Segment, text: Int32, begin: int, end: int, room: int = 0
    ) -> list[Piece]:
        """Write text[begin:end], preceded by what stood before it and with ``room`` behind it, and
        index it."""
        if begin >= end:
            return []
        context = min(begin, MAX_MATCH)
        size = context + end - begin
        start = self._take(size + room, segment)
        if start is None:
            middle = (begin + end) // 2
            left = self._write(segment, text, begin, middle)
            return left + self._write(segment, text, middle, end, room)
        self._new_run(segment, start, start + size + room)
        self.tokens[start : start + size] = text[begin - context : end]
        self._reserve()
        self.insert(start, size, context)
        return [Piece(start + context, start + size)]

    def _reserve(self) -> None:
        """As many slots as positions in use; the tables grow together."""
        if self.arena.used > len(self.tables[0].heads):
            for table in self.tables:
                table.reserve(self.arena.used)
            self.moved = True
