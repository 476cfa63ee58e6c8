"""The segmented position index: everything that can be drafted from, found by its last tokens.

Tokens of all segments lie in one arena that is written once per place. Edits add the changed
window, deletion empties a list of pieces; what is stale is swept in idle moments, and what earned
least credit is dropped where there is no room. Finding is ``positions_lookup``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from atlasd.draft.drafter import Int32
from atlasd.draft.ngrams import extend_prefix_hashes, key_of, keys_of
from atlasd.draft.positions_lookup import MAX_MATCH, PositionLookup
from atlasd.draft.positions_relinking import FEW, GAIN, Relinking
from atlasd.draft.positions_stale import Stale
from atlasd.draft.segments import Piece, Run, Segment, common_prefix

_BYTES_PER_TOKEN = 40  # token, run, four links and four heads
_TAIL = 256
_MAX_PIECES = 32
PIECE = 2048
"""Tokens of a new segment that are written at a time: a millisecond or two."""
_SWEEP = 256
"""Positions that are taken out of the chains at a time: about three milliseconds."""
_RESERVE = 64
"""What a segment that grows in pieces leaves free, as a part of all: a prompt, which cannot wait,
then finds its room without anything being dropped for it."""


class Watcher(Protocol):
    """Who keeps a copy of where segments lie (the native drafter)."""

    def placed(self, run: Run) -> None:
        """A run was allocated; no piece lies in it yet."""
        ...

    def changed(self, segment: Segment) -> None:
        """The segment's pieces are others now."""
        ...


class PositionIndex(PositionLookup):
    """Segments under a byte budget. Not thread-safe."""

    def __init__(self, budget_bytes: int = 512 << 20) -> None:
        super().__init__(max(1 << 12, budget_bytes // _BYTES_PER_TOKEN))
        self.clock = 0
        self.watcher: Watcher | None = None
        self.moved = True
        """The tables have other heads than before; for who reads them elsewhere, to take back."""
        self.insert: Callable[[int, int, int], None] = self._insert
        """Makes ``size`` arena positions from ``start`` findable, but for the first ``skip``."""
        self._free_runs: list[int] = []
        self._stale = Stale(self.arena, self.tokens, self.tables)
        self._relinking = Relinking(self.runs, lambda *place: self.insert(*place))

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
        room = _TAIL if grows else 0
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

    def release(self, segment: Segment) -> None:
        """Free what a segment holds, whether or not it is still known by its name."""
        if self.holds(segment):
            del self.segments[segment.repository, segment.name]
        self._clear(segment)

    def drop(self, name: str, repository: str | None) -> None:
        """Forget a segment: its positions are stale from now on."""
        segment = self.segments.pop((repository, name), None)
        if segment is not None:
            self._clear(segment)

    def drop_repository(self, repository: str | None) -> None:
        """Forget all segments of a repository (None: everything)."""
        for key in [k for k in self.segments if repository is None or k[0] == repository]:
            self._clear(self.segments.pop(key))
        if all(run is None for run in self.runs):
            self._start_anew()
        elif len(self._stale) > max(FEW, (self.arena.used - len(self._stale)) // GAIN):
            self._link_anew()

    def _start_anew(self) -> None:
        """Nothing lives anywhere: sweeping it all would take minutes of idle time."""
        self.tokens[: self.arena.used] = 0
        for table in self.tables:
            table.heads[:] = -1
        self.arena.clear()
        self._stale.clear()
        self._relinking.clear()

    def _link_anew(self) -> None:
        """Much is dead: free it at once, and link what lives again."""
        for table in self.tables:
            table.heads[:] = -1
        for start, stop in self._stale.take():
            self.tokens[start:stop] = 0
            self.arena.give(start, stop)
        self._relinking.begin(self.segments.values())

    def link_all(self) -> None:
        """Have everything within reach that lives, whatever is still to be done for it."""
        self._relinking.step(self.arena.capacity)

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

    def _insert(self, start: int, size: int, skip: int) -> None:
        written = self.tokens[start : start + size]
        for table, keys in zip(self.tables, keys_of(written), strict=True):
            first = max(skip, table.order - 1)
            if first < size:
                table.insert_many(keys[first:], start + first)

    def grow(self, segment: Segment) -> Piece:
        """A fresh last piece for an appending segment, with the text before it repeated."""
        context = self.read_tail(segment, MAX_MATCH)
        size = len(context) + _TAIL
        start = self._take(size, segment)
        assert start is not None, "a tail is small enough to be made room for"
        self._reserve()
        self._new_run(segment, start, start + size)
        self.tokens[start : start + len(context)] = context
        piece = Piece(start + len(context), start + len(context))
        self._set_pieces(segment, [*segment.pieces, piece])
        return piece

    def _take(self, size: int, owner: Segment) -> int | None:
        """Room for ``size`` adjacent positions; None if a long text has to be cut up for it."""
        if self.arena.free + len(self._stale) < size:
            self._drop_least(size + self.arena.capacity // 16, owner)
        start = self.arena.take(size)
        while start is None and self._stale:
            self._stale.sweep(max(size, _SWEEP))
            start = self.arena.take(size)
        if start is None and self.arena.free < size:
            self._evict(size, owner)
            start = self.arena.take(size)
        if start is None and size <= 2 * _TAIL:
            while start is None:
                self._evict(self.arena.free + size, owner)
                start = self.arena.take(size)
        return start

    def _make_room(self, size: int, keep: Segment | None = None) -> Iterator[None]:
        """Have ``size`` positions and the reserve free, a little at a time."""
        wanted = size + self.arena.capacity // _RESERVE
        if self.arena.free + len(self._stale) < wanted:
            yield
            self._drop_least(wanted + self.arena.capacity // 16, keep)
        while self._stale and self.arena.free < wanted:
            yield
            self._stale.sweep(_SWEEP)

    def _drop_least(self, wanted: int, keep: Segment | None) -> None:
        """Drop the segments of least credit, oldest first, until ``wanted`` positions are free or
        wait to be swept; streams' stay."""
        for segment in sorted(self.segments.values(), key=lambda s: (s.credit, s.updated)):
            if self.arena.free + len(self._stale) >= wanted:
                break
            if segment is not keep and segment.kind != "stream":
                self.drop(segment.name, segment.repository)
        for segment in self.segments.values():
            segment.credit /= 2

    def _evict(self, wanted: int, keep: Segment) -> None:
        """Free ``wanted`` positions whatever has to go for it, other streams' text in the end."""
        self._drop_least(wanted, keep)
        for segment in list(self.segments.values()):
            if self.arena.free + len(self._stale) >= wanted:
                break
            if segment is not keep:
                self._clear(segment)
        self._stale.sweep(self.arena.capacity)

    def sweep(self, most: int = _SWEEP) -> bool:
        """Free at most ``most`` places of dropped segments; True if there are more. For idle
        moments: at the end of a stream the next one would wait for it."""
        if self._relinking:
            self._relinking.step(PIECE)
        else:
            self._stale.sweep(most)
        return bool(self._stale or self._relinking)

    def stale(self, start: int, stop: int) -> None:
        """Nothing lives in these places any more; they are swept before they are used again."""
        self._stale.add(start, stop)

    def _new_run(self, segment: Segment, start: int, stop: int) -> None:
        run = Run(start, stop, segment)
        if self._free_runs:
            number = self._free_runs.pop()
            self.runs[number] = run
        else:
            number = len(self.runs)
            self.runs.append(run)
        run.number = number
        self.run_of[start:stop] = number
        segment.runs.append(run)
        if self.watcher is not None:
            self.watcher.placed(run)

    def _clear(self, segment: Segment) -> None:
        segment.generation += 1
        self._set_pieces(segment, [])
        for run in segment.runs:
            self._stale.add(run.start, run.stop)
            self.runs[run.number] = None
            self._free_runs.append(run.number)
        segment.runs = []

    def _set_pieces(self, segment: Segment, pieces: list[Piece]) -> None:
        segment.set_pieces(pieces)
        if self.watcher is not None:
            self.watcher.changed(segment)
