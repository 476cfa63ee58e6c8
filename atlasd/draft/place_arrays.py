"""Runs, pieces and segments of a position index as arrays, for the native side to read in place."""

from __future__ import annotations

import numpy as np
from atlasd_kernels.cpu.text import Arrays

from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.segments import KINDS, Run, Segment


class PlaceArrays:
    """The watcher of an index that keeps the arrays in step. ``grown``: an array was replaced by a
    larger one, so its address has changed."""

    def __init__(self, index: PositionIndex) -> None:
        self.index = index
        self.grown = True
        self.arrays = {
            name: np.full(1024, -1, np.int32)
            for name in (
                *("run_start", "run_piece"),
                *("piece_start", "piece_stop", "piece_next", "piece_sibling", "piece_segment"),
                *("segment_kind", "segment_repository", "segment_updated"),
            )
        }
        # Single entries are read and written several times faster through these.
        self._views = {name: values.data for name, values in self.arrays.items()}
        self._holds = dict.fromkeys(("run", "piece", "segment"), 1024)
        """Numbers that the arrays have room for, by prefix."""
        self.segments: list[Segment | None] = []
        self.pieces: dict[int, list[int]] = {}
        self._free_pieces: list[int] = []
        self._free_segments: list[int] = []
        self._piece_count = 0
        self._repositories: dict[str | None, int] = {}
        for run in index.runs:
            if run is not None:
                self.placed(run)
        for segment in index:
            self.changed(segment)
        index.watcher = self

    def fill(self, target: Arrays) -> None:
        """Write the arrays' addresses."""
        for name, values in self.arrays.items():
            setattr(target, name, values.ctypes.data)

    def repository(self, name: str | None) -> int:
        """The number that stands for a repository."""
        return self._repositories.setdefault(name, len(self._repositories))

    def placed(self, run: Run) -> None:
        self._room("run", run.number)
        self._views["run_start"][run.number] = run.start
        self._views["run_piece"][run.number] = -1

    def changed(self, segment: Segment) -> None:
        if segment.number >= 0:
            old = self.pieces.pop(segment.number)
            of_piece = self._views["piece_segment"]
            for at in old:
                of_piece[at] = -1
            self._free_pieces += old
        elif not segment.pieces:
            return
        of_run = self._views["run_piece"]
        for run in segment.runs:
            of_run[run.number] = -1
        if not segment.pieces:
            self.segments[segment.number] = None
            self._free_segments.append(segment.number)
            segment.number = -1
            return
        if segment.number < 0:
            self._number(segment)
        number = segment.number
        views = self._views
        views["segment_kind"][number] = KINDS.index(segment.kind)
        views["segment_repository"][number] = self.repository(segment.repository)
        views["segment_updated"][number] = segment.updated
        # All places first: finding one may replace an array.
        ids = [
            self._free_pieces.pop() if self._free_pieces else self._new_piece()
            for _ in segment.pieces
        ]
        begin, end = views["piece_start"], views["piece_stop"]
        after, sibling, of_piece = (
            views[f"piece_{name}"] for name in ("next", "sibling", "segment")
        )
        for at, following, piece in zip(ids, [*ids[1:], -1], segment.pieces, strict=True):
            begin[at], end[at] = piece.start, piece.stop
            of_piece[at], after[at] = number, following
            run_number = self.index.run_at(piece.start)
            sibling[at] = of_run[run_number]
            of_run[run_number] = at
        self.pieces[number] = ids

    def _number(self, segment: Segment) -> None:
        if self._free_segments:
            segment.number = self._free_segments.pop()
            self.segments[segment.number] = segment
        else:
            segment.number = len(self.segments)
            self.segments.append(segment)
            self._room("segment", segment.number)

    def _new_piece(self) -> int:
        self._piece_count += 1
        self._room("piece", self._piece_count - 1)
        return self._piece_count - 1

    def _room(self, prefix: str, number: int) -> None:
        """Make all arrays of this prefix hold ``number``."""
        if number < self._holds[prefix]:
            return
        while number >= self._holds[prefix]:
            self._holds[prefix] *= 2
        size = self._holds[prefix]
        for name, values in self.arrays.items():
            if name.startswith(prefix):
                longer = np.concatenate([values, np.full(size - len(values), -1, np.int32)])
                self.arrays[name], self._views[name] = longer, longer.data
        self.grown = True
