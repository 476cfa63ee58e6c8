"""Room for segments: what lies where, what is dropped to make room, what is swept when it is dead.

Deletion empties a list of pieces; what is stale is swept in idle moments or when its place is
needed, and what earned least credit is dropped where there is no room.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from atlasd.draft.ngrams import keys_of
from atlasd.draft.positions_lookup import PositionLookup
from atlasd.draft.positions_relinking import FEW, GAIN, Relinking
from atlasd.draft.positions_stale import Stale
from atlasd.draft.segments import Piece, Run, Segment

_BYTES_PER_TOKEN = 40  # token, run, four links and four heads
TAIL = 256
"""Positions that a growing segment reserves at a time; a place so small is always made."""
PIECE = 2048
"""Tokens of a new segment that are written at a time: a millisecond or two."""
_SWEEP = 256
"""Positions that are taken out of the chains at a time: about three milliseconds."""
_RESERVE = 64
"""What a segment that grows in pieces leaves free, as a part of all: a prompt, which cannot wait,
then finds its room without anything being dropped for it."""


_AHEAD = 1 << 16
"""Positions behind those in use whose memory is asked for in idle moments."""


class Watcher(Protocol):
    """Who keeps a copy of where segments lie (the native drafter)."""

    def placed(self, run: Run) -> None:
        """A run was allocated; no piece lies in it yet."""
        ...

    def changed(self, segment: Segment) -> None:
        """The segment's pieces are others now."""
        ...


class PositionRoom(PositionLookup):
    """Segments under a byte budget: their places, and how they come free. Not thread-safe."""

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

    def sweep(self, most: int = _SWEEP) -> bool:
        """Free at most ``most`` places of dropped segments; True if there are more. For idle
        moments: at the end of a stream the next one would wait for it."""
        if self._relinking:
            self._relinking.step(PIECE)
        else:
            self._stale.sweep(most)
        return bool(self._stale or self._relinking)

    def ask_for_memory(self) -> None:
        """Write where the next texts will be. The system clears a huge page when it is first
        written to: of all these arrays together that took eight milliseconds of a request."""
        used = self.arena.used
        places = slice(used, min(used + _AHEAD, self.arena.capacity), _AHEAD // 4)
        for array in (self.tokens, self.run_of, *(table.previous for table in self.tables)):
            array[places] = 0  # nothing lies there

    def stale(self, start: int, stop: int) -> None:
        """Nothing lives in these places any more; they are swept before they are used again."""
        self._stale.add(start, stop)

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
        if start is None and size <= 2 * TAIL:
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

    def _insert(self, start: int, size: int, skip: int) -> None:
        written = self.tokens[start : start + size]
        for table, keys in zip(self.tables, keys_of(written), strict=True):
            first = max(skip, table.order - 1)
            if first < size:
                table.insert_many(keys[first:], start + first)

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
