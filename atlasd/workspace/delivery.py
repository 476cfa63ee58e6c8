"""What the indexing thread made, taken on the event loop: to the engine, the store, listeners."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlasd.engine.protocol import AddSegment, DropRepository, DropSegment
from atlasd.errors import AtlasdError
from atlasd.workspace.analysis import Analysis
from atlasd.workspace.filerow import FileRow
from atlasd.workspace.scan import Found
from atlasd.workspace.task import Task

if TYPE_CHECKING:
    from atlasd.store.database import Store

logger = logging.getLogger(__name__)

Segment = AddSegment | DropSegment | DropRepository
Send = Callable[[Segment], None]
"""``EngineClient.send``: called on the event loop, must not raise when the engine is away."""
Drain = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class IndexProgress:
    """How far indexing is: files and tokens done, of ``total`` files; ``path`` is the last one."""

    files: int
    total: int
    tokens: int
    path: str = ""
    done: bool = False
    seconds: float = 0.0


Progress = Callable[[IndexProgress], None]
"""Called on the event loop."""


@dataclass(frozen=True)
class _Indexed:
    found: Found
    hash: bytes
    analysis: Analysis
    tokens: bytes | None
    saved: bool


class Batch:
    """Files indexed and dropped, of one repository."""

    def __init__(self, task: Task, key: str) -> None:
        self.task = task
        self.key = key
        self.bytes = 0
        self._indexed: list[_Indexed] = []
        self._dropped: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._indexed or self._dropped)

    def add(
        self,
        found: Found,
        hash: bytes,
        analysis: Analysis,
        tokens: bytes | None,
        saved: bool = True,
    ) -> None:
        self._indexed.append(_Indexed(found, hash, analysis, tokens, saved))
        self.bytes += len(tokens or b"") + 4 * len(analysis.identifiers)

    def drop(self, path: str) -> None:
        self._dropped.append(path)

    def apply(self, pause: Callable[[], None]) -> None:
        """Make it known in the repository, with ``pause`` between the files and in long steps."""
        for item in self._indexed:
            pause()
            count, key = (0, "") if item.tokens is None else (len(item.tokens) // 4, self.key)
            self.task.repository.put(item.found, item.hash, item.analysis, count, key, pause)
            self.task.counts.tokens += count

    def messages(self) -> list[Segment]:
        root = str(self.task.repository.root)
        added: list[Segment] = [
            AddSegment(
                item.found.path,
                root,
                "file",
                item.tokens,
                item.found.language,
                item.found.mtime_ns / 1e9,
            )
            for item in self._indexed
            if item.tokens is not None
        ]
        return [*(DropSegment(path, root) for path in self._dropped), *added]

    def rows(self) -> list[FileRow]:
        return [
            FileRow(
                item.found.path,
                item.found.language,
                item.found.size,
                item.found.mtime_ns,
                item.hash,
                len(item.tokens or b"") // 4,
                self.key if item.tokens is not None else "",
            )
            for item in self._indexed
            if item.saved
        ]

    @property
    def dropped(self) -> list[str]:
        return self._dropped


class Delivery:
    """The event loop's end."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        send: Send,
        drain: Drain | None,
        store: Store | None,
    ) -> None:
        self.loop = loop
        self._send = send
        self._drain = drain
        self._store = store
        self._listeners: dict[Task, list[Progress]] = {}

    async def take(self, batch: Batch) -> None:
        """Send the segments and keep the rows."""
        task = batch.task
        if task.closed:
            return
        for message in batch.messages():
            self._send(message)
        if self._drain:
            await self._drain()
        self._tell(task, done=False)
        if self._store and task.keep:
            root = str(task.repository.root)
            try:
                if rows := batch.rows():
                    await self._store.put_files(root, rows)
                if batch.dropped:
                    await self._store.drop_files(root, batch.dropped)
            except AtlasdError as error:
                logger.warning("Files are not recorded: %s", error)

    def send(self, message: Segment) -> None:
        self._send(message)

    def listen(self, task: Task, progress: Progress) -> None:
        self._listeners.setdefault(task, []).append(progress)

    def unlisten(self, task: Task, progress: Progress) -> None:
        listeners = self._listeners.get(task, [])
        if progress in listeners:
            listeners.remove(progress)

    def progress(self, task: Task) -> None:
        """From the indexing thread: counts have changed."""
        self._soon(lambda: self._tell(task, done=False))

    def idle(self, task: Task) -> None:
        """From the indexing thread: nothing is left to do."""
        self._soon(lambda: self._finish(task))

    def snapshot(self, task: Task, done: bool) -> IndexProgress:
        counts, repository = task.counts, task.repository
        seconds = time.monotonic() - counts.started
        # Not all that was looked at was taken in: some are no text, too large, empty.
        files = len(repository.files) if done else counts.files
        return IndexProgress(files, counts.total, repository.tokens, counts.path, done, seconds)

    def _finish(self, task: Task) -> None:
        if not task.idle.is_set():
            task.idle.set()
            self._tell(task, done=True)

    def _tell(self, task: Task, done: bool) -> None:
        for listener in list(self._listeners.get(task, ())):
            listener(self.snapshot(task, done))

    def _soon(self, call: Callable[[], None]) -> None:
        try:
            self.loop.call_soon_threadsafe(call)
        except RuntimeError:
            logger.debug("The event loop has ended before the indexing thread")
