"""Which positions of the token arena are free."""

from __future__ import annotations

from bisect import bisect_left


class Arena:
    """Positions [0, capacity): fresh ones are handed out in order, freed ones are re-used."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.used = 0
        """Positions ever handed out: arrays beyond here hold nothing."""
        self.holes: list[tuple[int, int]] = []
        """Freed ranges [start, stop), ascending, never adjacent."""

    @property
    def free(self) -> int:
        """Positions that are not handed out."""
        return self.capacity - self.used + sum(stop - start for start, stop in self.holes)

    def take(self, size: int) -> int | None:
        """The start of ``size`` adjacent positions, or None if no free range is that long."""
        for index, (start, stop) in enumerate(self.holes):
            if stop - start >= size:
                if stop - start == size:
                    del self.holes[index]
                else:
                    self.holes[index] = (start + size, stop)
                return start
        if self.used + size <= self.capacity:
            start = self.used
            self.used += size
            return start
        return None

    def clear(self) -> None:
        """Free everything."""
        self.used = 0
        self.holes.clear()

    def give(self, start: int, stop: int) -> None:
        """Free a range, joining it with free neighbours."""
        at = bisect_left(self.holes, (start, stop))
        if at < len(self.holes) and self.holes[at][0] == stop:
            stop = self.holes.pop(at)[1]
        if at > 0 and self.holes[at - 1][1] == start:
            start = self.holes[at - 1][0]
            at -= 1
            del self.holes[at]
        if stop == self.used:
            self.used = start
            return
        self.holes.insert(at, (start, stop))
