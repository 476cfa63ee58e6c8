"""Segments: named runs of tokens in the arena, in the order they are read.

A segment is a list of pieces of the arena. An edit clips pieces and adds one for the changed
window; nothing else moves. A position is live while a piece of its segment covers it.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field

from atlasd.draft.drafter import Int32

KINDS = ("stream", "file", "accepted", "output")


@dataclass(slots=True)
class Piece:
    """Positions [start, stop) of the arena."""

    start: int
    stop: int


@dataclass(slots=True, eq=False)
class Segment:
    """One version of a file, a request with its output, or an accepted completion."""

    name: str
    repository: str | None
    kind: str
    language: str | None = None
    generation: int = 0
    """Raised by every edit and by deletion."""
    updated: int = 0
    """The index's clock at the last change."""
    credit: float = 0.0
    """Accepted tokens that were drafted from here, halved now and then."""
    pieces: list[Piece] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    length: int = 0
    number: int = -1
    """Its id in the native drafter's arrays."""
    _starts: list[int] = field(default_factory=list)
    _order: list[int] = field(default_factory=list)

    def set_pieces(self, pieces: list[Piece]) -> None:
        """Replace the text by these pieces, in reading order."""
        self.pieces = pieces
        self.length = sum(piece.stop - piece.start for piece in pieces)
        by_start = sorted(range(len(pieces)), key=lambda i: pieces[i].start)
        self._starts = [pieces[i].start for i in by_start]
        self._order = by_start

    @property
    def grows(self) -> bool:
        """Whether there is room behind the text's end."""
        if not self.pieces or not self.runs:
            return False
        run = self.runs[-1]
        return run.start <= self.pieces[-1].stop < run.stop

    def piece_at(self, position: int) -> int:
        """Index of the piece that covers an arena position, or -1 where none does."""
        at = bisect_right(self._starts, position) - 1
        if at < 0:
            return -1
        index = self._order[at]
        return index if position < self.pieces[index].stop else -1

    def clip(self, begin: int, end: int) -> list[Piece]:
        """The pieces that hold the text's tokens [begin, end)."""
        kept, offset = [], 0
        for piece in self.pieces:
            size = piece.stop - piece.start
            low, high = max(begin - offset, 0), min(end - offset, size)
            if low < high:
                kept.append(Piece(piece.start + low, piece.start + high))
            offset += size
        return kept


@dataclass(slots=True, eq=False)
class Run:
    """An allocation [start, stop) of the arena; its tokens stood beside each other in a text."""

    start: int
    stop: int
    segment: Segment
    number: int = -1
    """Its id in the index's run array."""


def common_prefix(one: Int32, other: Int32) -> int:
    """How many leading tokens two texts share."""
    count = min(len(one), len(other))
    differs = one[:count] != other[:count]
    return int(differs.argmax()) if differs.any() else count
