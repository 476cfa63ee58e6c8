"""Places of dropped segments: out of every segment already, not yet out of the n-gram chains."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from atlasd.draft.arena import Arena
from atlasd.draft.drafter import Int32
from atlasd.draft.ngrams import LONGEST, NgramTable, keys_of


class Stale:
    """Ranges of an arena that wait to be freed: taking them out of the chains takes time, which
    is better spent when nobody waits."""

    def __init__(self, arena: Arena, tokens: Int32, tables: Sequence[NgramTable]) -> None:
        """``tokens``: what stands at the arena's positions."""
        self._arena = arena
        self._tokens = tokens
        self._tables = tables
        self._ranges: deque[tuple[int, int]] = deque()
        self._count = 0

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __len__(self) -> int:
        """Positions that wait."""
        return self._count

    def add(self, start: int, stop: int) -> None:
        """Nothing lives in the positions [start, stop) any more."""
        self._ranges.append((start, stop))
        self._count += stop - start

    def clear(self) -> None:
        """The arena begins anew: nothing waits any more."""
        self._ranges.clear()
        self._count = 0

    def take(self) -> list[tuple[int, int]]:
        """All that waits, for whoever empties the chains: nothing waits any more."""
        ranges = list(self._ranges)
        self.clear()
        return ranges

    def sweep(self, most: int) -> None:
        """Free at most ``most`` positions."""
        while self._ranges and most > 0:
            start, stop = self._ranges.popleft()
            # From the end: the keys of what is left need the tokens before them only.
            begin = max(start, stop - most)
            context = min(begin - start, LONGEST - 1)
            keys = keys_of(self._tokens[begin - context : stop])
            for table, of_table in zip(self._tables, keys, strict=True):
                table.unlink(of_table[max(context, table.order - 1) :], begin, stop)
            self._arena.give(begin, stop)
            if begin > start:
                self._ranges.appendleft((start, begin))
            self._count -= stop - begin
            most -= stop - begin
