"""The chains made anew after much was forgotten at once: what lives is linked again, a little at a
time, which is far quicker than taking every dead position out of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence

from atlasd.draft.ngrams import LONGEST
from atlasd.draft.segments import Run, Segment

FEW = 1 << 14
"""Dead positions that are swept in well under a second of idle time."""
GAIN = 8
"""Positions that are linked again, at the least, in the time in which one is taken out."""


class Relinking:
    """Live positions that wait to be found again. ``insert`` makes positions findable, as
    ``PositionIndex.insert`` does."""

    def __init__(self, runs: Sequence[Run | None], insert: Callable[[int, int, int], None]) -> None:
        self._runs = runs
        self._insert = insert
        self._waiting: deque[tuple[Run, int, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def begin(self, segments: Iterable[Segment]) -> None:
        """The chains are empty: all that lives waits, what is newest goes in last."""
        self._waiting = deque(
            (run, piece.start, piece.stop)
            for segment in sorted(segments, key=lambda each: each.updated)
            for piece in segment.pieces
            for run in segment.runs
            if run.start <= piece.start < run.stop and piece.start < piece.stop
        )

    def step(self, most: int) -> None:
        """Link at most ``most`` positions."""
        while self._waiting and most > 0:
            run, start, stop = self._waiting.popleft()
            if self._runs[run.number] is not run:
                continue  # dropped meanwhile
            end = min(stop, start + most)
            # Keys are made of the tokens before, which stand there for that.
            begin = max(run.start, start - LONGEST + 1)
            self._insert(begin, end - begin, start - begin)
            if end < stop:
                self._waiting.appendleft((run, end, stop))
            most -= end - start

    def clear(self) -> None:
        """Nothing lives any more."""
        self._waiting.clear()
