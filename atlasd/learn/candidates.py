"""Candidates: adapters in training, and whether one is better than the version in use."""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator

import numpy as np

from atlasd.draft.adaptable import Adaptable
from atlasd.draft.drafter import Float32
from atlasd.learn.adapter import Adapter
from atlasd.learn.gate import Float64, lower_bound, still_gains
from atlasd.learn.passages import Passage
from atlasd.learn.repository import Adapted
from atlasd.learn.scoring import Scorer
from atlasd.learn.training import Trainer, Window

WINDOW = 32
"""Rows of a training step."""

LOOK_EVERY = 150
"""Training steps between two looks at a candidate."""

POOL = 6
"""Passages whose states are held while training on them."""


class Candidates:
    """Trains one repository's candidate at a time, a step to a unit of work."""

    def __init__(self, model: Adaptable, scorer: Scorer, seed: int) -> None:
        self._model = model
        self._scorer = scorer
        self._seed = seed
        self._draw = random.Random(seed)
        self._pool: list[tuple[Passage, Float32, int]] = []
        """Passages to train on, their states, and how often they still will be."""
        self._pool_of: Adapted | None = None

    def train(self, one: Adapted) -> Iterator[None]:
        """One training step; before the first, a candidate that corrects nothing yet."""
        if one.trainer is None:
            yield from self._begin(one)
        if one.trainer is None:
            one.owed = 0.0
            return
        yield from self._fill_pool(one)
        if len(self._pool) < POOL:
            return
        passage, states, visits = self._pool.pop(self._draw.randrange(POOL))
        if visits > 1:
            self._pool.append((passage, states, visits - 1))
        one.trainer.step(self._window(passage, states))
        one.steps += 1
        one.owed -= 1.0
        one.unsaved = True
        yield

    def due(self, one: Adapted) -> bool:
        """Whether the candidate has been trained for long enough to be looked at."""
        return one.trainer is not None and (
            one.steps - one.looked >= LOOK_EVERY or (one.owed < 1.0 and one.steps > one.looked)
        )

    def judge(self, one: Adapted) -> Generator[None, None, tuple[Adapter, float] | None]:
        """The candidate as it is now, if it gains on rows that no training has seen: with the
        lower confidence bound of the share of time it saves."""
        assert one.trainer is not None
        one.looked = one.steps
        candidate, live = one.trainer.adapter.copy(), one.versions.live
        yield
        self._scorer.head_rows(candidate)
        yield
        static, current, new = list[Float64](), list[Float64](), list[Float64]()
        for passage in list(one.replay.unseen):
            states = yield from self._scorer.states(passage)
            static.append(self._scorer.played(one, passage, states, None))
            current.append(self._scorer.played(one, passage, states, live))
            yield
            new.append(self._scorer.play(self._scorer.agrees(passage, states, candidate)))
            yield
        if one.versions.live is not live:
            return None
        gain = min(lower_bound(static, new), lower_bound(current, new))
        if gain > 0.0 and still_gains(static, new) and still_gains(current, new):
            return candidate, gain
        return None

    def renew_head(self, one: Adapted) -> Iterator[None]:
        """Let the candidate draft what the repository uses by now."""
        assert one.trainer is not None
        head = one.head(self._model.head, self._model.vocab_size)
        yield
        if head is not None and not np.array_equal(head, one.trainer.adapter.head):
            one.trainer.use_head(head)
        yield

    def restart(self, one: Adapted) -> None:
        """Train on from the version in use: what led away from it was no good."""
        live = one.versions.live
        one.trainer = Trainer(live.adapter.copy(), self._model.rows) if live else None
        self.forget()

    def forget(self) -> None:
        """Let go of the passages in hand."""
        self._pool.clear()

    def _begin(self, one: Adapted) -> Iterator[None]:
        head = one.head(self._model.head, self._model.vocab_size)
        yield
        if head is not None:
            fresh = Adapter.fresh(head, self._model.hidden, self._model.vocab_size, self._seed)
            yield
            one.trainer = Trainer(fresh, self._model.rows)
            yield

    def _fill_pool(self, one: Adapted) -> Iterator[None]:
        if self._pool_of is not one:
            self._pool, self._pool_of = [], one
        while len(self._pool) < POOL:
            sampled = one.replay.sample()
            if sampled is None:
                return
            states = yield from self._scorer.states(sampled)
            self._pool.append((sampled, states, 2 * max(1, sampled.rows // WINDOW)))

    def _window(self, passage: Passage, states: Float32) -> Window:
        """Rows of a passage that follow each other, from a place drawn at random."""
        count = min(WINDOW, passage.rows)
        at = self._draw.randrange(passage.rows - count + 1)
        rows = slice(at, at + count)
        last, before = passage.read_by
        return Window(
            states[rows],
            last[rows],
            before[rows],
            passage.top[rows],
            passage.logprobs[rows].astype(np.float32),
        )
