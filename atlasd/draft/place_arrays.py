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
        self.arrays["run_start"][run.number] = run.start
        self.arrays["run_piece"][run.number] = -1

    def changed(self, segment: Segment) -> None:
        a = self.arrays
        if segment.number >= 0:
            old = self.pieces.pop(segment.number)
            a["piece_segment"][old] = -1
            self._free_pieces += old
        elif not segment.pieces:
            return
        a["run_piece"][[run.number for run in segment.runs]] = -1
        if not segment.pieces:
            self.segments[segment.number] = None
            self._free_segments.append(segment.number)
            segment.number = -1
            return
        if segment.number < 0:
            self._number(segment)
        number = segment.number
        a["segment_kind"][number] = KINDS.index(segment.kind)
        a["segment_repository"][number] = self.repository(segment.repository)
        a["segment_updated"][number] = segment.updated
        ids: list[int] = []
        for piece in segment.pieces:
            at = self._free_pieces.pop() if self._free_pieces else self._new_piece()
            a["piece_start"][at] = piece.start
            a["piece_stop"][at] = piece.stop
            a["piece_segment"][at] = number
            run = int(self.index.run_of[piece.start])
            a["piece_sibling"][at] = a["run_piece"][run]
            a["run_piece"][run] = at
            a["piece_next"][at] = -1
            if ids:
                a["piece_next"][ids[-1]] = at
            ids.append(at)
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
        for name, values in self.arrays.items():
            if name.startswith(prefix) and number >= len(values):
                self.arrays[name] = np.concatenate([values, np.full(len(values), -1, np.int32)])
                self.grown = True
