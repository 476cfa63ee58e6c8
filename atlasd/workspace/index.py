"""Indexing behind everything else: one thread that reads, analyses and tokenises in small steps.

It stands still while requests are served: ``busy`` is asked before every step, and a step is cut
so that it takes about two milliseconds. What it makes goes to the event loop in batches, and it
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
from importlib import import_module
from pathlib import Path

from atlasd.workspace.contents import Contents, Read
from atlasd.workspace.delivery import Batch, Delivery
from atlasd.workspace.looking import look_at, look_through
from atlasd.workspace.memory import return_free_memory, return_large_blocks
from atlasd.workspace.repository import Repository
from atlasd.workspace.task import Gone, Look, Task
from atlasd.workspace.tokens import StepwiseTokenizer, Tokenize

logger = logging.getLogger(__name__)
PAUSE_S = 0.002
BATCH_BYTES = 1 << 18
BATCH_S = 0.1


class Stopped(Exception):
    """The thread is to end."""


class Indexer:
    """Owns the indexing thread. Public methods may be called on the event loop's thread."""

    def __init__(self, delivery: Delivery, busy: Callable[[], bool], caches: Path | None) -> None:
        self._delivery = delivery
        self._busy = busy
        self._contents = Contents(self._yield, caches)
        self._condition = threading.Condition()
        self._tasks: list[Task] = []
        self._wanted: tuple[Tokenize, str] | None = None
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
        if key == self.key:
            return
        with self._condition:
            self._wanted = (tokenize, key)
            for task in self._tasks:
                task.rescan()

    @property
    def key(self) -> str:
        """Of the tokenizer in use; empty before there is one."""
        return self._wanted[1] if self._wanted else ""

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
        return_large_blocks()
        # Takes longest to import: better before there is a request that would wait for it.
        import_module("atlasd.workspace.wordcache")
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
            task.close_cache()
            self._delivery.idle(task)

    def _do(self, task: Task) -> None:
        """Take up what is due, then one batch of the work at hand."""
        if task.watch is None:
            task.start_watching()
        if not task.keep:
            task.close_cache()
        with self._condition:
            now = time.monotonic()
            noted, rested = task.take_unnoted(), task.take_rested(now)
            dirty = task.take_dirty(now)
            through, again = task.take_rescan(now)
            wanted = self._wanted
        self._adopt(wanted)
        for path, text in noted:
            if text is not None:
                self._contents.note(task, path, text)
            elif task.repository.close_buffer(path):
                task.changed(path)
        if through:
            self._contents.open_cache(task)
            task.work = [look_through(task, again, lambda: self._delivery.progress(task))]
        if dirty:
            task.work.append(look_at(task, dirty))
        batch = Batch(task, self._contents.key)
        for path, text in rested:
            self._contents.index_buffer(batch, path, text)
        self._work(task, batch)
        self._deliver(batch)
        with self._condition:
            quiet = task.quiet
        if quiet:
            if task.repository.state == "indexing":
                return_free_memory()
            task.repository.state = "watching"
            self._delivery.idle(task)

    def _adopt(self, wanted: tuple[Tokenize, str] | None) -> None:
        if wanted and wanted[1] != self._contents.key:
            # Not above: the daemon's start does without.
            from atlasd.workspace.wordcache import by_words

            self._contents.tokenizer = StepwiseTokenizer(*wanted, by_words(wanted[0]))

    def _work(self, task: Task, batch: Batch) -> None:
        contents = self._contents
        deadline = time.monotonic() + BATCH_S
        reads: list[Read] = []
        while task.work and batch.bytes < BATCH_BYTES and time.monotonic() < deadline:
            self._yield()
            step = next(task.work[-1], _DONE)
            if isinstance(step, _Done):
                task.work.pop()
            elif isinstance(step, Look):
                if read := self._look_safely(batch, step):
                    reads.append(read)
            elif isinstance(step, Gone):
                contents.finish(batch, reads)
                contents.drop(batch, step.path)
            if sum(len(read.text) for read in reads) >= contents.step_characters:
                contents.finish(batch, reads)
        contents.finish(batch, reads)

    def _look_safely(self, batch: Batch, look: Look) -> Read | None:
        try:
            return self._contents.look(batch, look)
        except Stopped:
            raise
        except Exception:
            # A file that breaks something must not end indexing for all others.
            logger.exception("%s could not be indexed", look.found.path)
            return None

    def _yield(self) -> None:
        """Stand still while requests are served."""
        while self._busy() or self._paused:
            if self._stopping:
                raise Stopped
            time.sleep(0.05 if self._paused else PAUSE_S)
        if self._stopping:
            raise Stopped

    def _deliver(self, batch: Batch) -> None:
        """Put the batch into the repository and give it to the event loop; wait until taken."""
        if not batch:
            return
        batch.apply(self._yield)
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
