"""Learning in idle time: files what was verified, has the target read, trains, judges, promotes.

All work is cut into units of a few milliseconds; ``idle`` runs them until its time is up, so that
an arriving request waits for one unit at most. What a repository's new rows are worth is bounded:
when it is done there is nothing to do until something new comes.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from collections.abc import Callable, Generator, Iterator
from time import monotonic, perf_counter, thread_time
from typing import Protocol

import msgspec
import numpy as np

from atlasd.draft.adaptable import Adaptable
from atlasd.draft.cut import Costs
from atlasd.draft.drafter import EMPTY, Draft, Float32, Int32, StreamView, VerifiedRows
from atlasd.draft.neural import Corrected, Neural
from atlasd.learn.adapter import Adapter
from atlasd.learn.files import AdapterFiles, Header
from atlasd.learn.gate import Bools, Float64, Watch, lower_bound, play, still_gains
from atlasd.learn.passages import Passage, of_stream
from atlasd.learn.repository import Adapted
from atlasd.learn.training import Trainer, Window
from atlasd.learn.versions import FORMAT, Report
from atlasd.learn.warmup import passages_of

log = logging.getLogger(__name__)

KIND = "adapter"
"""The ``kind`` of the ``Learned`` and ``Restore`` messages that carry a ``Report``."""

REPOSITORIES = 6
"""In memory; the one used least recently is written to disk and let go."""

WINDOW = 32
"""Rows of a training step."""

UNIT_MS = 3.0
"""What a unit of work should take."""

LOOK_EVERY = 150
"""Training steps between two looks at the candidate."""

POOL = 6
"""Passages whose states are held while training on them."""

SAVE_EVERY_S = 30.0

WARM_BUDGET = 4096
"""Tokens read for a repository that was known in an earlier run."""

LARGEST_HEAD = 16384
"""A static drafter that drafts more tokens than this is not adapted: training would take too
long for idle moments."""


class Target(Protocol):
    """The target, lent while no stream runs."""

    @property
    def rows(self) -> int:
        """Rows of a call that take a few milliseconds; 0: reading is too slow here."""
        ...

    def begin(self) -> bool:
        """Take a slot nobody needs; False if there is none."""
        ...

    def read(self, tokens: Int32, position: int) -> tuple[Int32, Float32] | None:
        """Top choices and their log-probabilities, each [n, TOP], after tokens [n] that go to
        ``position`` on. None if the slot was needed meanwhile."""
        ...


class Learner:
    """The adapters of all repositories. A ``Drafter`` that proposes nothing: it is told of streams
    like the others. Everything runs on the step loop's thread."""

    name = "learner"
    free = False

    def __init__(
        self,
        model: Adaptable,
        neural: Neural,
        costs: Costs,
        *,
        files: AdapterFiles | None = None,
        target: Target | None = None,
        promoted: Callable[[], None] = lambda: None,
        seed: int = 0,
    ) -> None:
        """``files``: where to keep what is learned (None: nowhere); ``promoted`` is called before
        a repository's first version is used."""
        self.model = model
        self.target = target
        self._neural = neural
        self._costs = costs
        self._files = files
        self._promoted = promoted
        self._seed = seed
        self._draw = random.Random(seed)
        self._known: dict[str | None, Adapted] = {}
        self._pool: list[tuple[Passage, Float32, int]] = []
        """Passages to train on, their states, and how often they still will be."""
        self._pool_of: Adapted | None = None
        self._chunk = 16
        self._static: Float32 | None = None
        self._heads: deque[tuple[Adapter, Float32]] = deque(maxlen=4)
        self._saved_at = monotonic()
        self._work = self._units()
        self._headers = {header.repository: header for header in files.headers()} if files else {}
        for header in list(self._headers.values())[-REPOSITORIES:]:
            self._of(header.repository)
        neural.correction_of = self.correction_of

    @staticmethod
    def can_learn(model: Adaptable) -> bool:
        """Whether training this drafter fits into idle moments."""
        return (model.vocab_size if model.head is None else len(model.head)) <= LARGEST_HEAD

    # What drafting tells and asks

    def begin(self, stream: StreamView) -> None:
        """Nothing is known of the stream yet."""

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        return EMPTY

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        """The stream's end is early enough."""

    def settle(self, draft: Draft, accepted: int) -> None:
        """Nothing was proposed."""

    def end(self, stream: StreamView) -> None:
        if stream.learn and len(stream.tokens) > stream.prompt_length:
            one = self._of(stream.repository)
            one.fresh.extend(of_stream(stream.tokens, stream.prompt_length))

    def wish(
        self, repository: str, name: str, kind: str, tokens: Int32, modified: float = 0.0
    ) -> None:
        """A text of a trusted repository came or changed: the target may read it."""
        if self.target is not None:
            self._of(repository).warmup.wish(name, kind, tokens, modified)

    def unwish(self, repository: str, name: str) -> None:
        """A text is gone."""
        if repository in self._known:
            self._known[repository].warmup.drop(name)

    def correction_of(self, repository: str | None) -> Corrected | None:
        """The version in use for a repository; None: the static drafter."""
        one = self._known.get(repository)
        live = one.versions.live if one is not None else None
        if live is None:
            return None
        if live.corrected is None:
            live.corrected = self._corrected(live.adapter)
        return live.corrected

    # Idle time

    def idle(self, milliseconds: float) -> bool:
        """Work for at most this long and the rest of a unit; True if more is left to do."""
        end = perf_counter() + milliseconds / 1e3
        while next(self._work):
            if perf_counter() >= end:
                return True
        return False

    def _units(self) -> Iterator[bool]:
        """Endless: True after each unit of work, False where there is none."""
        while True:
            worked = False
            for _ in self._task():
                worked = True
                yield True
            if not worked:
                yield False

    def _task(self) -> Iterator[None]:
        """The most useful task, unit by unit; nothing if there is none."""
        for one in reversed(list(self._known.values())):
            if not one.loaded:
                yield from self._load(one)
            elif one.fresh:
                yield from self._file(one, one.fresh.popleft())
            elif one.trains and one.owed > 64:
                yield from self._train(one)
            elif (reading := self._reading(one)) is not None:
                yield from reading
            elif one.trains:
                yield from self._train(one)
            elif one.unsaved and monotonic() - self._saved_at > SAVE_EVERY_S:
                self._save(one)
                yield
            else:
                continue
            return

    def _file(self, one: Adapted, passage: Passage) -> Iterator[None]:
        """Judge the versions by a passage they have not seen, then keep the passage."""
        live, good = one.versions.live, one.versions.good
        if live is not None or good is not None:
            states = yield from self._states(passage)
            static = self._play(self._hits(one, passage, states, 0, None))
            played = [static, static]
            for at, version in enumerate((live, good)):
                if version is not None:
                    hits = self._hits(one, passage, states, version.number, version.adapter)
                    played[at] = self._play(hits)
                    yield
            one.watch.note(static, *played)
            if live is not None and not one.watch.pays:
                self._roll_back(one)
            elif live is None and one.watch.good_is_back:
                one.versions.reinstate()
                self._changed(one)
        one.file(passage)
        yield

    def _reading(self, one: Adapted) -> Iterator[None] | None:
        """Have the target read what waits; None if nothing does, or it cannot now."""
        target = self.target
        if target is None or not target.rows:
            return None
        block = one.warmup.next()
        if block is None:
            return None

        def units() -> Iterator[None]:
            if not target.begin():
                return
            tops, logprobs = list[Int32](), list[Float32]()
            for at in range(0, len(block.tokens), target.rows):
                found = target.read(block.tokens[at : at + target.rows], at)
                if found is None:
                    return  # a request came between; the next block does as well
                tops.append(found[0])
                logprobs.append(found[1])
                yield
            read = passages_of(block, np.concatenate(tops), np.concatenate(logprobs))
            one.fresh.extend(read)
            yield

        return units()

    def _train(self, one: Adapted) -> Iterator[None]:
        """A burst of training steps; at its end perhaps a look at the candidate."""
        if one.trainer is None:
            yield from self._begin(one)
        trainer = one.trainer
        if trainer is None:
            one.owed = 0.0
            return
        if self._pool_of is not one:
            self._pool, self._pool_of = [], one
        while len(self._pool) < POOL:
            sampled = one.replay.sample()
            if sampled is None:
                return
            states = yield from self._states(sampled)
            self._pool.append((sampled, states, 2 * max(1, sampled.rows // WINDOW)))
        at = self._draw.randrange(POOL)
        passage, states, visits = self._pool.pop(at)
        if visits > 1:
            self._pool.append((passage, states, visits - 1))
        trainer.step(self._window(passage, states))
        one.steps += 1
        one.owed -= 1.0
        one.unsaved = True
        yield
        if one.steps - one.looked >= LOOK_EVERY or one.owed < 1.0:
            yield from self._look(one, trainer)

    def _look(self, one: Adapted, trainer: Trainer) -> Iterator[None]:
        """Judge the candidate on rows that no training has seen, and promote it if it gains."""
        one.looked = one.steps
        candidate, live = trainer.adapter.copy(), one.versions.live
        yield
        self._head_rows(candidate)
        yield
        static, current, new = list[Float64](), list[Float64](), list[Float64]()
        for passage in list(one.replay.unseen):
            states = yield from self._states(passage)
            static.append(self._play(self._hits(one, passage, states, 0, None)))
            if live is None:
                current = static
            else:
                hits = self._hits(one, passage, states, live.number, live.adapter)
                current.append(self._play(hits))
            yield
            new.append(self._play(self._agrees(passage, states, candidate)))
            yield
        if one.versions.live is not live:
            return
        gain = min(lower_bound(static, new), lower_bound(current, new))
        if gain > 0.0 and still_gains(static, new) and still_gains(current, new):
            self._promote(one, candidate, gain)
            yield
        head = one.head(self.model.head, self.model.vocab_size)
        yield
        if head is not None and not np.array_equal(head, trainer.adapter.head):
            trainer.use_head(head)
        yield

    # Versions

    def _promote(self, one: Adapted, candidate: Adapter, gain: float) -> None:
        if one.versions.live is None:
            self._promoted()
        version = one.versions.promote(candidate, gain)
        version.corrected = self._corrected(candidate)
        log.info("adapter %d of %s saves %.1f %%", version.number, one.repository, 100 * gain)
        self._changed(one)

    def _roll_back(self, one: Adapted) -> None:
        live = one.versions.live
        log.info("adapter %d of %s is rolled back", live.number if live else 0, one.repository)
        one.versions.roll_back(to_good=one.watch.good_pays)
        # What led there is not trained further.
        former = one.versions.live
        one.trainer = Trainer(former.adapter.copy(), self.model.rows) if former else None
        self._pool.clear()
        self._changed(one)

    def _changed(self, one: Adapted) -> None:
        """Another version is in use."""
        one.watch = Watch()
        if self._files is not None:
            self._files.save_versions(one.repository, one.versions, one.replay.rows, one.steps)

    def _begin(self, one: Adapted) -> Iterator[None]:
        """A candidate that corrects nothing yet."""
        head = one.head(self.model.head, self.model.vocab_size)
        yield
        if head is not None:
            fresh = Adapter.fresh(head, self.model.hidden, self.model.vocab_size, self._seed)
            yield
            one.trainer = Trainer(fresh, self.model.rows)
            yield

    def _corrected(self, adapter: Adapter) -> Corrected:
        return self.model.corrected(
            adapter.head,
            adapter.down,
            adapter.up,
            adapter.last,
            adapter.before,
            adapter.bias[adapter.head],
        )

    # States, windows, hits

    def _states(self, passage: Passage) -> Generator[None, None, Float32]:
        """The static drafter's states of a passage's rows, computed anew in short calls."""
        parts = list[Float32]()
        end = passage.first + passage.rows
        at = 0
        while at < end:
            count = min(self._chunk, end - at)
            began = thread_time()
            parts.append(self.model.states(passage.tokens[at : at + count], at))
            per_row = max((thread_time() - began) * 1e3 / count, 1e-3)
            wanted = int(min(max(UNIT_MS / per_row, 1), 256))
            self._chunk = max(1, (3 * self._chunk + wanted + 3) // 4)
            at += count
            yield
        return np.concatenate(parts)[passage.first : end]

    def _window(self, passage: Passage, states: Float32) -> Window:
        """Rows of a passage that follow each other, from a place drawn at random."""
        count = min(WINDOW, passage.rows)
        at = self._draw.randrange(passage.rows - count + 1)
        rows = slice(at, at + count)
        last, before = _read_by(passage)
        return Window(
            states[rows],
            last[rows],
            before[rows],
            passage.top[rows],
            passage.logprobs[rows].astype(np.float32),
        )

    def _hits(
        self, one: Adapted, passage: Passage, states: Float32, number: int, adapter: Adapter | None
    ) -> Bools:
        """``_agrees`` of a version that does not change any more."""
        known = one.hits.setdefault(passage, {})
        if number not in known:
            known[number] = self._agrees(passage, states, adapter)
        return known[number]

    def _agrees(self, passage: Passage, states: Float32, adapter: Adapter | None) -> Bools:
        """Where the drafter's first choice is the target's, [rows]; ``adapter`` None: without."""
        if adapter is None:
            head = self.model.head
            if head is None:
                head = np.arange(self.model.vocab_size, dtype=np.int32)
            if self._static is None:
                self._static = np.ascontiguousarray(self.model.rows(head), np.float32)
            best = (states @ self._static.T).argmax(axis=1)
        else:
            head = adapter.head
            rows = self._head_rows(adapter)
            best = adapter.logits(states, *_read_by(passage), rows).argmax(axis=1)
        agrees: Bools = head[best] == passage.top[:, 0]
        return agrees

    def _head_rows(self, adapter: Adapter) -> Float32:
        """The drafter's rows of an adapter's head; those of the last few are kept."""
        for known, rows in self._heads:
            if known is adapter:
                return rows
        rows = np.ascontiguousarray(self.model.rows(adapter.head), np.float32)
        self._heads.append((adapter, rows))
        return rows

    def _play(self, hits: Bools) -> Float64:
        """What a passage would have cost, by lookahead."""
        return play(hits, lambda rows: self._costs.ms(rows, 512), self._neural.token_ms)

    # Repositories

    def _of(self, repository: str | None) -> Adapted:
        one = self._known.pop(repository, None)
        if one is None:
            one = Adapted(repository)
            header = self._headers.get(repository)
            if header is not None and self._files is not None:
                one.versions = self._files.load_versions(
                    header, self.model.hidden, self.model.vocab_size
                )
                one.loaded = False
        self._known[repository] = one
        if len(self._known) > REPOSITORIES:
            oldest = next(iter(self._known))
            self._save(self._known.pop(oldest))
        return one

    def _load(self, one: Adapted) -> Iterator[None]:
        """Rows and candidate of an earlier run."""
        one.loaded = True
        header = self._headers.get(one.repository)
        if self._files is None or header is None:
            return
        self._files.load_rows(one.repository, one.replay, self.model.vocab_size)
        # Most of it was read before; what has changed since earns its own.
        one.warmup.left = min(one.warmup.left, WARM_BUDGET)
        yield
        candidate = self._files.load_candidate(header, self.model.hidden, self.model.vocab_size)
        if candidate is not None:
            one.trainer = Trainer(candidate, self.model.rows)
        yield

    def _save(self, one: Adapted) -> None:
        self._saved_at = monotonic()
        one.unsaved = False
        if self._files is None or not one.loaded:
            return
        self._files.save_rows(one.repository, one.replay)
        if one.trainer is not None:
            self._files.save_candidate(one.repository, one.trainer.adapter)
        self._files.save_versions(one.repository, one.versions, one.replay.rows, one.steps)
        report = one.versions.report(self._files.key, one.replay.rows, one.steps)
        self._headers[one.repository] = Header(one.repository, report)

    def save(self) -> None:
        """Write everything that has changed to the folder."""
        for one in self._known.values():
            if one.unsaved:
                self._save(one)

    def learned(self) -> list[tuple[str, str | None, bytes]]:
        """(kind, repository, payload) for the store: versions and what became of them."""
        if self._files is None:
            return []
        return [
            (
                KIND,
                one.repository,
                msgspec.msgpack.encode(
                    one.versions.report(self._files.key, one.replay.rows, one.steps)
                ),
            )
            for one in self._known.values()
            if one.steps or one.versions.latest
        ]

    def restore(self, repository: str | None, payload: bytes) -> None:
        """Take back what ``learned`` gave; the weights themselves are in the folder."""
        try:
            report = msgspec.msgpack.decode(payload, type=Report)
        except msgspec.DecodeError:
            return
        if report.format == FORMAT and self._files is not None and report.key == self._files.key:
            self._of(repository).versions.remember(report)

    def forget(self, repository: str | None) -> None:
        """Drop all that was learned from a repository (None: from all), the files as well."""
        self._pool.clear()
        self._heads.clear()
        # What is being worked on may belong to it.
        self._work = self._units()
        if repository is None:
            self._known.clear()
            self._headers.clear()
        else:
            self._known.pop(repository, None)
            self._headers.pop(repository, None)
        if self._files is not None:
            self._files.forget(repository)

    def target_changed(self) -> None:
        """The target's weights are others now: judge anew, and train on what it says from now on.
        The version in use stays until it stops paying."""
        self._pool.clear()
        self._work = self._units()
        for one in self._known.values():
            one.replay.age()
            one.fresh.clear()
            one.hits.clear()
            one.watch = Watch()

    @property
    def nbytes(self) -> int:
        """Bytes of rows and weights."""
        return sum(
            one.replay.nbytes
            + sum(v.adapter.nbytes for v in (one.versions.live, one.versions.good) if v)
            + (3 * one.trainer.adapter.nbytes if one.trainer else 0)
            for one in self._known.values()
        )


def _read_by(passage: Passage) -> tuple[Int32, Int32]:
    """The token each row read, and the one before it; each [rows]."""
    end = passage.first + passage.rows
    return passage.tokens[passage.first : end], passage.tokens[passage.first - 1 : end - 1]
