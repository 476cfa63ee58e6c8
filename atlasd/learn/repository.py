"""One repository's adapter: what it is trained on, the candidate in training, its versions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain, islice
from weakref import WeakKeyDictionary

import numpy as np

from atlasd.draft.drafter import Int32
from atlasd.learn.adapter import HEAD
from atlasd.learn.gate import Bools, Watch
from atlasd.learn.passages import Passage
from atlasd.learn.replay import Replay
from atlasd.learn.training import Trainer
from atlasd.learn.versions import Versions
from atlasd.learn.warmup import WarmUp

ENOUGH_ROWS = 512
"""Rows without which nothing is trained."""

FRESH = 128
"""Passages that may wait to be filed."""

ENDED_ROWS = 8192
"""Rows of streams that may wait to be cut into passages, with their states; while nobody has time
for that the newest wait."""

LEAST_ROWS = 32
"""A stream counts as so many rows at least: there is its prompt, too."""

AGAIN = 192
"""Passages that a changed target reads again, or that wait for what it says of them: a second or
two of a small model. Of 48 no adapter learned anything that it had not known."""

STEPS_PER_PASSAGE = 10.0
"""Training steps that a new passage is worth; when they are done, training rests."""

MOST_OWED = 3000.0


@dataclass(eq=False)
class Adapted:
    """All that is known of one repository. ``owed`` is how many training steps new rows are still
    worth."""

    repository: str | None
    versions: Versions = field(default_factory=Versions)
    replay: Replay = field(default_factory=Replay)
    warmup: WarmUp = field(default_factory=WarmUp)
    ended: deque[tuple[Iterable[Passage], bool, int]] = field(default_factory=deque)
    """Streams that are over, not yet cut into passages: the next one wants that time. With each
    whether its passages are to be read first (``again``), and its rows."""
    ended_rows: int = 0
    fresh: deque[Passage] = field(default_factory=lambda: deque(maxlen=FRESH))
    """Passages nobody has looked at yet."""
    again: deque[tuple[Passage, bool | None]] = field(default_factory=deque)
    """Passages of which it is not known what the target, as it is now, says there, and whether they
    are set apart for judging; None: their turn will say."""
    watch: Watch = field(default_factory=Watch)
    trainer: Trainer | None = None
    owed: float = 0.0
    steps: int = 0
    looked: int = 0
    """Training steps at the last look at the candidate."""
    loaded: bool = True
    """Rows and candidate of an earlier run are in memory."""
    unsaved: bool = False
    hits: WeakKeyDictionary[Passage, dict[int, Bools]] = field(default_factory=WeakKeyDictionary)
    """Where a version (0: the static drafter) says what the target chose, by passage."""

    def end(self, passages: Iterable[Passage], rows: int, drawn: bool = False) -> None:
        """A stream of so many ``rows`` is over; its ``passages`` are made when they are first
        looked at. ``drawn``: its tokens were drawn at random, and the target can be asked what it
        holds likely there."""
        rows = max(rows, LEAST_ROWS)
        self.ended.append((passages, drawn, rows))
        self.ended_rows += rows
        while self.ended_rows > ENDED_ROWS:
            self.ended_rows -= self.ended.popleft()[2]

    def cut(self) -> None:
        """Cut the stream that ended first."""
        passages, drawn, rows = self.ended.popleft()
        self.ended_rows -= rows
        for passage in passages:
            if drawn and len(self.again) < AGAIN:
                self.again.append((passage, None))
            else:
                self.fresh.append(passage)

    def file(self, passage: Passage, unseen: bool | None = None) -> None:
        """A passage was looked at: keep it, and train for it. ``unseen``: whether it is set apart
        for judging; None: what its turn says."""
        if unseen is None:
            self.replay.take(passage)
        else:
            self.replay.put(passage, unseen)
        self.unsaved = True
        worth = STEPS_PER_PASSAGE * passage.rows / 64
        self.owed = min(self.owed + worth, MOST_OWED)

    @property
    def trains(self) -> bool:
        """There is something to train on, and training it is still worth its time."""
        return self.owed >= 1.0 and self.replay.rows >= ENOUGH_ROWS

    def target_changed(self, reads: bool) -> None:
        """The rows are no longer what the target says. ``reads``: it can be asked again about the
        newest of them; else those are kept to train on, and there is nothing to judge by."""
        while self.ended:
            self.cut()
        while self.fresh:
            self.replay.take(self.fresh.popleft())
        if reads:
            self.again = deque(islice(chain(self.replay.drain(), self.again), AGAIN))
            self.replay = Replay()
        else:
            self.replay.age()
        self.unsaved = True
        self.hits.clear()
        self.watch = Watch()

    @property
    def nbytes(self) -> int:
        """Bytes of rows and weights."""
        versions = (self.versions.live, self.versions.good)
        return (
            self.replay.nbytes
            + sum(passage.nbytes for passage in self.fresh)
            + sum(passage.nbytes for passage, _ in self.again)
            + sum(version.adapter.nbytes for version in versions if version)
            + (self.trainer.nbytes if self.trainer else 0)
        )

    def head(self, static: Int32 | None, vocab_size: int) -> Int32 | None:
        """The tokens its adapter should draft; None while too few are known.

        Those of the static drafter, most frequent first, except that the rarest among them which
        are never chosen here give way to tokens that are. So drafting costs what it did."""
        passages = (*self.replay.recent, *self.replay.older, *self.replay.unseen)
        counts = np.zeros(vocab_size, np.int64)
        for passage in passages:
            np.add.at(counts, passage.top[:, 0], 1)
        if static is None:
            chosen = np.flatnonzero(counts)
            order = np.argsort(-counts[chosen], kind="stable")
            return (
                chosen[order][:HEAD].astype(np.int32)
                if len(chosen) >= min(64, vocab_size // 2)
                else None
            )
        outside = counts.copy()
        outside[static] = 0
        wanted = np.flatnonzero(outside >= 2)
        wanted = wanted[np.argsort(-outside[wanted], kind="stable")]
        unused = np.flatnonzero(counts[static] == 0)[::-1][: len(wanted)]
        head = static.astype(np.int32)
        head[unused] = wanted[: len(unused)]
        return head
