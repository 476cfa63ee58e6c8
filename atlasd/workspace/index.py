"""Indexing behind everything else: one thread that reads, analyses and tokenises in small steps.

It stands still while requests are served: ``busy`` is asked before every step, and a step is cut
so that it takes about three milliseconds. What it makes goes to the event loop in batches, and it
waits for them to be taken, so nothing piles up.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from pathlib import Path

from atlasd.workspace.analysis import Analysis, analyse, content_hash
from atlasd.workspace.delivery import Batch, Delivery
from atlasd.workspace.language import language_of
from atlasd.workspace.looking import look_at, look_through
from atlasd.workspace.never import MAX_BYTES
from atlasd.workspace.reading import decoded, masked, read_bytes
from atlasd.workspace.repository import Repository
from atlasd.workspace.scan import Found, allowed
from atlasd.workspace.slices import slices
from atlasd.workspace.task import Gone, Look, Task
from atlasd.workspace.tokencache import TokenCache, cache_file
from atlasd.workspace.tokens import StepSize, Tokenize, pack

logger = logging.getLogger(__name__)
PAUSE_S = 0.002
STEP_FILES = 16
BATCH_BYTES = 1 << 18
BATCH_S = 0.1


class Stopped(Exception):
    """The thread is to end."""


class Indexer:
    """Owns the indexing thread. Public methods may be called on the event loop's thread."""

    def __init__(self, delivery: Delivery, busy: Callable[[], bool], caches: Path | None) -> None:
        self._delivery = delivery
        self._busy = busy
        self._caches = caches
        self._condition = threading.Condition()
        self._tasks: list[Task] = []
        self._tokenize: Tokenize | None = None
        self._key = ""
        self._step = StepSize()
        self._paused = False
        self._stopping = False
        self._thread = threading.Thread(target=self._main, name="atlasd-index", daemon=True)
        self._thread.start()

    def add(self, repository: Repository) -> Task:
        task = Task(repository, self._condition)
        with self._condition:
            self._tasks.append(task)
            self._condition.notify_all()
        return task

    def remove(self, task: Task) -> None:
        with self._condition:
            task.closed = True
            self._condition.notify_all()

    def use_tokenizer(self, tokenize: Tokenize, key: str) -> None:
        with self._condition:
            self._tokenize, self._key = tokenize, key
            self._step = StepSize()
            for task in self._tasks:
                task.rescan()

    def pause(self, paused: bool) -> None:
        with self._condition:
            self._paused = paused
            self._condition.notify_all()

    def stop(self) -> None:
        """Blocks until the thread has ended."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join()

    # the thread

    def _main(self) -> None:
        try:
            while True:
                self._end_closed()
                if task := self._next_task():
                    self._do_safely(task)
        except Stopped:
            pass
        finally:
            for task in self._tasks:
                task.closed = True
            self._end_closed()

    def _do_safely(self, task: Task) -> None:
        try:
            self._do(task)
        except Stopped:
            raise
        except Exception:
            # A file that breaks something must not end indexing for all others.
            logger.exception("Indexing %s failed at a step", task.repository.root)

    def _next_task(self) -> Task | None:
        """Wait for something to do; None: something was closed."""
        with self._condition:
            while True:
                if self._stopping:
                    raise Stopped
                if any(task.closed for task in self._tasks):
                    return None
                now = time.monotonic()
                due = [(task.due_in(now), task) for task in self._tasks]
                waits = [(wait, task) for wait, task in due if wait is not None]
                wait, first = min(waits, key=lambda item: item[0], default=(None, None))
                if first and wait is not None and wait <= 0 and not self._paused:
                    return first
                self._condition.wait(None if self._paused else wait)

    def _end_closed(self) -> None:
        for task in [task for task in self._tasks if task.closed]:
            with self._condition:
                self._tasks.remove(task)
            if task.watch:
                task.watch.stop()
            if task.cache:
                task.cache.close()
                task.cache = None
            self._delivery.idle(task)

    def _do(self, task: Task) -> None:
        """Take up what is due, then one batch of the work at hand."""
        if task.watch is None:
            task.start_watching()
        with self._condition:
            now = time.monotonic()
            noted, rested = task.take_unnoted(), task.take_rested(now)
            dirty = task.take_dirty(now)
            through, again = task.take_rescan(now)
        for path, text in noted:
            self._note(task, path, text)
        if through:
            self._open_cache(task)
            tell = lambda: self._delivery.progress(task)  # noqa: E731
            task.work = [look_through(task, again, tell)]
        if dirty:
            task.work.append(look_at(task, dirty))
        batch = Batch(task, self._key)
        for path, text in rested:
            self._index_buffer(batch, path, text)
        self._work(task, batch)
        self._deliver(batch)
        with self._condition:
            quiet = task.quiet
        if quiet:
            task.repository.state = "watching"
            self._delivery.idle(task)

    def _work(self, task: Task, batch: Batch) -> None:
        deadline = time.monotonic() + BATCH_S
        while task.work and batch.bytes < BATCH_BYTES and time.monotonic() < deadline:
            step = next(task.work[-1], _DONE)
            if isinstance(step, _Done):
                task.work.pop()
            elif isinstance(step, Gone):
                self._drop(batch, step.path)
            elif isinstance(step, Look):
                self._yield()
                self._look(batch, step)
            else:
                self._yield()

    def _yield(self) -> None:
        """Stand still while requests are served."""
        while self._busy() or self._paused:
            if self._stopping:
                raise Stopped
            time.sleep(PAUSE_S)
        if self._stopping:
            raise Stopped

    def _look(self, batch: Batch, look: Look) -> None:
        """Index one file, as far as it is not indexed yet."""
        task, found, key = batch.task, look.found, self._key
        repository = task.repository
        entry = repository.entry(found.path)
        same = entry is not None and (entry.found.size, entry.found.mtime_ns) == (
            found.size,
            found.mtime_ns,
        )
        if entry and same and entry.key == key and not (look.content or look.again):
            return
        cached = task.cache.get(found.path) if task.cache else None
        if cached and cached.matches(found) and not look.content:
            batch.add(found, cached.hash, cached.analysis, cached.tokens)
            return
        read_at = int(time.time())
        data = read_bytes(repository.root, found.path)
        raw = None if data is None else decoded(data)
        if data is None or raw is None:
            self._drop(batch, found.path)
            return
        hash = content_hash(data)
        if entry and entry.hash == hash and entry.key == key and not look.again:
            repository.put_tokens(found, entry.tokens, key)
            return
        text = masked(raw, self._yield)
        tokens: bytes | None
        if cached and cached.hash == hash:
            analysis, tokens = cached.analysis, cached.tokens
        else:
            analysis = analyse(text, found.language, self._yield)
            tokens = self._tokens(text)
        if look.alone and entry is not None and entry.hash != hash:
            at = found.mtime_ns / 1e9
            repository.note_saved(found.path, text, entry.lines, analysis.lines, at)
        if task.cache and tokens is not None:
            self._cache(task, found, hash, tokens, analysis, read_at)
        batch.add(found, hash, analysis, tokens)

    def _tokens(self, text: str) -> bytes | None:
        """The text's tokens as little-endian int32, in steps that are short enough."""
        if self._tokenize is None:
            return None
        parts: list[bytes] = []
        for piece in slices(text, self._step.characters):
            self._yield()
            started = time.perf_counter()
            parts.extend(pack(ids) for ids in self._tokenize([piece]))
            self._step.observe(len(piece), time.perf_counter() - started)
        return b"".join(parts)

    def _drop(self, batch: Batch, path: str) -> None:
        if batch.task.repository.drop(path):
            batch.drop(path)

    def _note(self, task: Task, path: str, text: str) -> None:
        repository = task.repository
        if len(text) <= MAX_BYTES and allowed(repository.root, repository.rules, path):
            repository.note_buffer(path, masked(text))

    def _index_buffer(self, batch: Batch, path: str, text: str) -> None:
        """An open buffer that rests becomes the segment of its file, saved or not."""
        repository = batch.task.repository
        if len(text) > MAX_BYTES or not allowed(repository.root, repository.rules, path):
            return
        hash = content_hash(text.encode("utf-8", "replace"))
        entry = repository.entry(path)
        if entry and entry.hash == hash and entry.key == self._key:
            return
        safe = masked(text, self._yield)
        found = repository.find(path) or Found(path, language_of(path) or "", len(text), 0)
        analysis = analyse(safe, found.language, self._yield)
        batch.add(found, hash, analysis, self._tokens(safe), saved=False)

    def _open_cache(self, task: Task) -> None:
        if self._caches is None or not self._key or not task.keep:
            return
        path = cache_file(self._caches, task.repository.root, self._key)
        if task.cache and task.cache.path == path:
            return
        if task.cache:
            task.cache.close()
        try:
            task.cache = TokenCache(path)
        except OSError as error:
            task.cache = None
            logger.warning("Tokens are not kept: %s", error)

    def _cache(
        self, task: Task, found: Found, hash: bytes, tokens: bytes, analysis: Analysis, at: int
    ) -> None:
        try:
            assert task.cache is not None
            task.cache.put(found, hash, tokens, analysis, at)
        except OSError as error:
            task.cache.close() if task.cache else None
            task.cache = None
            logger.warning("Tokens are no longer kept: %s", error)

    def _deliver(self, batch: Batch) -> None:
        """Put the batch into the repository and give it to the event loop; wait until taken."""
        if not batch:
            return
        batch.apply()
        taken: Future[None] = asyncio.run_coroutine_threadsafe(
            self._delivery.take(batch), self._delivery.loop
        )
        while True:
            try:
                taken.result(timeout=0.1)
                return
            except FutureTimeout:
                if self._stopping:
                    raise Stopped from None
            except Exception:
                logger.exception("A batch of segments was not taken")
                return


class _Done:
    pass


_DONE = _Done()
