"""What one repository's adapter is trained and judged on, in bounded memory.

Three parts: a ring of recent passages; a uniform sample (reservoir, Vitter 1985) of those that fell
out of the ring; and every fourth passage, which no training ever sees, for judging. Passages that
are too old to judge by are dropped.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterator

from atlasd.learn.passages import Passage

RECENT = 384
OLDER = 384
UNSEEN = 64
"""Passages of each part, of at most 64 rows."""

EVERY = 4
"""One passage in so many is kept from training."""


class Replay:
    """Passages in the order they came. ``draw`` decides what the reservoir keeps."""

    def __init__(self, seed: int = 0, recent: int = RECENT, older: int = OLDER) -> None:
        self.recent: deque[Passage] = deque()
        self.older: list[Passage] = []
        self.unseen: deque[Passage] = deque(maxlen=UNSEEN)
        self._sizes = (recent, older)
        self._draw = random.Random(seed)
        self._taken = 0
        self._fallen = 0

    def take(self, passage: Passage) -> bool:
        """Keep a passage; True if it may be trained on."""
        self._taken += 1
        unseen = self._taken % EVERY == 0
        self.put(passage, unseen)
        return not unseen

    def put(self, passage: Passage, unseen: bool) -> None:
        """Keep a passage in the part it belongs to."""
        if unseen:
            self.unseen.append(passage)
            return
        self.recent.append(passage)
        if len(self.recent) > self._sizes[0]:
            self._fall(self.recent.popleft())

    def sample(self) -> Passage | None:
        """A passage to train on: two of three are recent, and the newest quarter counts twice."""
        if self.older and self._draw.random() < 1 / 3:
            return self._draw.choice(self.older)
        if not self.recent:
            return None
        at = self._draw.random()
        if self._draw.random() < 0.2:
            at = 0.75 + at / 4
        return self.recent[int(at * len(self.recent))]

    def age(self) -> None:
        """The target has changed: what it said long ago is no longer what it would say."""
        self.older.clear()
        self.unseen.clear()
        self._fallen = 0
        while len(self.recent) > self._sizes[0] // 8:
            self.recent.popleft()

    def drain(self) -> Iterator[tuple[Passage, bool]]:
        """Take everything out: recent passages and those set apart (True), the newest first."""
        self.older.clear()
        self._fallen = 0
        while self.recent or self.unseen:
            for _ in range(min(EVERY - 1, len(self.recent))):
                yield self.recent.pop(), False
            if self.unseen:
                yield self.unseen.pop(), True

    @property
    def rows(self) -> int:
        """Rows that may be trained on."""
        return sum(passage.rows for part in (self.recent, self.older) for passage in part)

    @property
    def nbytes(self) -> int:
        """Bytes of all passages."""
        parts = (self.recent, self.older, self.unseen)
        return sum(passage.nbytes for part in parts for passage in part)

    def _fall(self, passage: Passage) -> None:
        self._fallen += 1
        size = self._sizes[1]
        if len(self.older) < size:
            self.older.append(passage)
        elif (at := self._draw.randrange(self._fallen)) < size:
            self.older[at] = passage
