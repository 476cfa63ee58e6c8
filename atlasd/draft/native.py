"""The text drafter in native code: the same drafts as ``Mixture``, in a few microseconds.

Python keeps the index, the segments and the recycle tables; the native side reads and writes their
arrays in place, and keeps what it learns (masses, confidence) itself.
"""

from __future__ import annotations

import ctypes
from array import array
from dataclasses import dataclass
from weakref import finalize

import numpy as np
import numpy.typing as npt
from atlasd_kernels.cpu.text import FEATURES, MAX_DRAFT, Arrays, Counters, Drafted, TextLibrary

from atlasd.draft.confidence import FRESH_INFORMATION, LANGUAGE_CAP, REPOSITORY_CAP
from atlasd.draft.drafter import EMPTY, Draft, StreamView, VerifiedRows
from atlasd.draft.learned import SourceState
from atlasd.draft.mixture import PRIOR, Mixture
from atlasd.draft.place_arrays import PlaceArrays
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.recycle import RECENT, Recycle
from atlasd.draft.segments import Segment

_STATES = range(5)
_WEIGHTS = 2


@dataclass(slots=True)
class _State:
    handle: int
    segment: Segment
    generation: int
    """Of the segment when its tail was handed over."""


class NativeMixture(Mixture):
    """``Mixture`` in native code; its drafts come with their confidence."""

    def __init__(self, index: PositionIndex, recycle: Recycle, library: TextLibrary) -> None:
        super().__init__(index, recycle)
        self._library = library
        self.handle = self._text = library.new()
        finalize(self, library.free, self._text)
        self._numbers(_WEIGHTS)[: len(PRIOR)] = PRIOR
        self._places = PlaceArrays(index)
        self._tokens_at = index.tokens.ctypes.data
        self._offsets: dict[tuple[str, str], int] = {}
        self._out = Drafted()
        self._native_streams: dict[int, _State] = {}
        self.handles: dict[int, int] = {}
        """By stream, its native side."""
        index.insert = self._insert

    def begin(self, stream: StreamView) -> None:
        self.check_prediction(stream)
        tokens = stream.text()
        self.positions.begin(stream, tokens, hashed=False)
        self.attach()
        skipped = max(0, len(tokens) - RECENT)
        handle = self._library.begin(
            self._text,
            tokens.ctypes.data + 4 * skipped,
            len(tokens) - skipped,
            self._places.repository(stream.repository),
            self._offset("language", stream.language),
            self._offset("repository", stream.repository),
            stream.learn,
        )
        segment = self.positions.segment_of(stream)
        if segment.grows:
            self._tail(handle, segment)
        self._native_streams[stream.stream] = _State(handle, segment, segment.generation)
        self.handles[stream.stream] = handle

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        state = self._native_streams[stream.stream]
        self.attach()
        out = self._out
        drafted = array("i", after)
        address, count = drafted.buffer_info()
        self._library.propose(
            self._text,
            state.handle,
            address,
            count,
            min(limit, MAX_DRAFT),
            self.least_reach,
            self.positions.index.clock,
            out,
        )
        size = out.count
        if size == 0:
            return EMPTY
        return Draft(
            self.name,
            out.tokens[:size],
            [],
            self._places.segments[out.segment] if out.segment >= 0 else None,
            out.probability[:size],
            _parts(out.from_place[:size]),
        )

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        self.attach()
        raw = array("i", tokens)
        address, count = raw.buffer_info()
        handle = self.ready_to_grow(stream)
        self.grow(stream, address, 0, count)
        self._library.observe(self._text, handle, address, count)
        if stream.learn:
            self.recycle.observe_rows(tokens, rows)

    # For the native planner

    def ready_to_grow(self, stream: StreamView) -> int:
        """The native side of a stream whose tail is its own, if it has one."""
        state = self._native_streams[stream.stream]
        if state.segment.generation != state.generation:
            # It was evicted or forgotten under the running stream: its tail is not its own now.
            self._library.tail(state.handle, -1, 0)
        return state.handle

    def grew(self, stream: StreamView, written: int) -> None:
        """So many tokens were written behind the stream's tail."""
        if written:
            segment = self._native_streams[stream.stream].segment
            segment.pieces[-1].stop += written
            segment.length += written

    def grow(self, stream: StreamView, address: int, done: int, count: int) -> None:
        """Write the tokens [done, count) at ``address`` behind the stream's tail, giving it room
        where there is none."""
        state = self._native_streams[stream.stream]
        while done < count:
            written = self._library.append(
                self._text, state.handle, address + 4 * done, count - done
            )
            if written:
                self.grew(stream, written)
                done += written
            else:
                self.positions.index.grow(state.segment)
                self.attach()
                self._tail(state.handle, state.segment)
                state.generation = state.segment.generation

    def _tail(self, handle: int, segment: Segment) -> None:
        """A stream's text goes on in its segment's last piece."""
        piece = self._places.pieces[segment.number][-1]
        self._library.tail(handle, piece, segment.runs[-1].stop)

    def credit(self, number: int, accepted: int) -> None:
        """So many tokens from a segment were accepted."""
        segment = self._places.segments[number]
        if segment is not None:
            segment.credit += accepted

    def end(self, stream: StreamView) -> None:
        state = self._native_streams.pop(stream.stream)
        del self.handles[stream.stream]
        self._library.end(self._text, state.handle)
        self.positions.end(stream)

    def counters(self) -> Counters:
        """Tokens proposed and foreseen so far."""
        found = Counters()
        self._library.counters(self._text, found)
        return found

    def masses_state(self) -> tuple[list[float], list[float]]:
        return self._numbers(0).tolist(), self._numbers(1).tolist()

    def load_masses(self, value: list[float], seen: list[float]) -> None:
        self._write(0, np.array(value))
        self._write(1, np.array(seen))

    def forget(self, repository: str | None) -> None:
        self.recycle.clear()
        self._library.forget_rules(self._text)
        for (kind, name), number in self._offsets.items():
            if repository is None or (kind == "repository" and name == repository):
                self._write_offset(number, (0.0, FRESH_INFORMATION))
        if repository is None:
            fresh = self._library.new()
            for which in _STATES:
                self._write(which, self._numbers(which, fresh))
            self._library.free(fresh)
            self._numbers(_WEIGHTS)[: len(PRIOR)] = PRIOR

    def state(self) -> SourceState:
        """The confidence of this source."""
        weights, information, bias, offsets = (self._numbers(which) for which in (2, 3, 4, 5))
        pairs = offsets.reshape(-1, 4)[:, :2].tolist()
        return SourceState(
            FEATURES,
            weights.copy(),
            information.copy(),
            bias.tolist(),
            {
                key: (pairs[number][0], pairs[number][1])
                for key, number in self._offsets.items()
                if pairs[number][1] != FRESH_INFORMATION
            },
        )

    def load(self, state: SourceState) -> None:
        """Take over a state."""
        if state.features == FEATURES:
            for which, values in ((2, state.weights), (3, state.information), (4, state.bias)):
                self._write(which, np.array(values))
            for (kind, value), learned in state.offsets.items():
                self.load_offset(kind, value, learned)

    def load_offset(self, kind: str, value: str, learned: tuple[float, float]) -> None:
        """Take over the offset of a language or a repository."""
        self._write_offset(self._offset(kind, value), learned)

    def _insert(self, start: int, size: int, skip: int) -> None:
        self.attach()
        self._library.insert(self._text, self._tokens_at + 4 * start, size, start, skip)

    def _numbers(self, which: int, text: int | None = None) -> npt.NDArray[np.float64]:
        """A view of what the native side learned: masses, their evidence, weights, their
        information, bias, and four numbers per offset."""
        count = ctypes.c_int64()
        address = self._library.state(self._text if text is None else text, which, count)
        if not address or not count.value:
            return np.empty(0)
        values = (ctypes.c_double * count.value).from_address(address)
        return np.ctypeslib.as_array(values)

    def _write(self, which: int, values: npt.NDArray[np.float64]) -> None:
        view = self._numbers(which)
        if len(view) == len(values):
            view[:] = values

    def _write_offset(self, number: int, learned: tuple[float, float]) -> None:
        self._numbers(5)[4 * number : 4 * number + 2] = learned

    def _offset(self, kind: str, value: str | None) -> int:
        key = (kind, value or "")
        number = self._offsets.get(key)
        if number is None:
            cap = LANGUAGE_CAP if kind == "language" else REPOSITORY_CAP
            number = self._offsets[key] = self._library.offset(self._text, cap)
        return number

    def attach(self) -> None:
        """Hand over the arrays where one of them was replaced; before every native call."""
        index, recycle = self.positions.index, self.recycle
        if not self._places.grown and not index.moved:
            return
        self._places.grown = index.moved = False
        arrays = Arrays(tokens=self._tokens_at, run_of=index.run_of.ctypes.data)
        for at, table in enumerate(index.tables):
            arrays.links[at] = table.previous.ctypes.data
            arrays.heads[at] = table.heads.ctypes.data
            arrays.masks[at] = table.mask
        self._places.fill(arrays)
        lines = recycle.lines
        known = (("single", recycle.single), ("pair", recycle.pair), ("line", lines.table))
        for name, successors in known:
            setattr(arrays, name, successors.followed.ctypes.data)
        if lines.known:
            arrays.ends_line = lines.ends.ctypes.data
        self._library.attach(self._text, arrays)


def _parts(from_place: list[int]) -> tuple[tuple[str, int], ...]:
    """Runs of equal sources."""
    placed = sum(from_place)
    if placed in (0, len(from_place)):
        return (("positions" if placed else "recycle", len(from_place)),)
    parts: list[tuple[str, int]] = []
    start = 0
    for at in range(1, len(from_place) + 1):
        if at == len(from_place) or from_place[at] != from_place[start]:
            parts.append(("positions" if from_place[start] else "recycle", at - start))
            start = at
    return tuple(parts)
