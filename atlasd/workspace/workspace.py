"""The repositories that are open: scanned, watched, indexed; each only as far as it is trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from atlasd.engine.protocol import DropRepository
from atlasd.errors import RequestError
from atlasd.paths import expanded
from atlasd.workspace.delivery import Delivery, Drain, IndexProgress, Progress, Segment, Send
from atlasd.workspace.index import Indexer
from atlasd.workspace.repository import Repository
from atlasd.workspace.task import Task
from atlasd.workspace.tokencache import remove_caches
from atlasd.workspace.tokens import Tokenize

if TYPE_CHECKING:
    from atlasd.store.database import Store

__all__ = ["IndexProgress", "Progress", "Repository", "Segment", "Send", "Tokenize", "Workspace"]


class Workspace:
    """Multi-root. Nothing of a root that is not trusted is read, watched, indexed or stored.
    Made and called on the event loop; the work is done on a thread of its own."""

    def __init__(
        self,
        *,
        send: Send,
        drain: Drain | None = None,
        busy: Callable[[], bool] = lambda: False,
        store: Store | None = None,
        cache: Path | None = None,
    ) -> None:
        """``send`` and ``drain`` are the engine client's. ``busy`` says whether requests are being
        served: indexing stands still meanwhile. ``cache`` is a folder where tokenised files are
        kept from run to run."""
        self._cache = cache / "tokens" if cache else None
        self._delivery = Delivery(asyncio.get_running_loop(), send, drain, store)
        self._indexer = Indexer(self._delivery, busy, self._cache)
        self._open: dict[Path, tuple[Repository, Task | None]] = {}
        self._paused = False

    @property
    def repositories(self) -> list[Repository]:
        return [repository for repository, _ in self._open.values()]

    def use_tokenizer(self, tokenize: Tokenize, key: str) -> None:
        """From now on index with this tokenizer (``key``: its fingerprint); may be called again
        when the model changes, and then indexes everything anew."""
        if key == self._indexer.key:
            return
        for _, task in self._open.values():
            if task:
                task.idle.clear()
        self._indexer.use_tokenizer(tokenize, key)

    def engine_started(self) -> None:
        """The engine is ready and knows nothing: give it every segment again. Call it whenever
        the engine has become ready."""
        for _, task in self._open.values():
            if task:
                task.idle.clear()
                task.rescan(again=True)

    async def open(self, root: str | Path, trusted: bool) -> Repository:
        """Open a root, or change its trust; scanning, watching and indexing go on behind.

        Raises RequestError if there is no such folder, or it holds everything there is."""
        folder = real_root(root)
        if trusted and folder == folder.parent:
            # With /proc and every home in it; an editor without a folder may well say so.
            raise RequestError(f"{folder} is the whole machine.", "Give the root of a repository.")
        known = self._open.get(folder)
        if known and known[0].trusted == trusted:
            return known[0]
        if known:
            await self.close(folder)
            if not trusted:
                self._delivery.send(DropRepository(str(folder)))
        if not folder.is_dir():
            raise RequestError(f"There is no folder {folder}.", "Give the root of a repository.")
        repository = Repository(folder, trusted)
        task = self._indexer.add(repository) if trusted else None
        self._open[folder] = (repository, task)
        return repository

    async def close(self, root: str | Path) -> None:
        """Stop watching a root. What was learned from it stays."""
        repository, task = self._open.pop(real_root(root), (None, None))
        if repository:
            repository.state = "closed"
        if task:
            self._indexer.remove(task)

    def repository_of(self, path: str | Path) -> Repository | None:
        """The innermost open repository that holds an absolute path."""
        found = self._holding(path)
        return found[0] if found else None

    def note_edit(self, path: str | Path, text: str | None) -> None:
        """An open buffer changed: ``text`` is all of it, saved or not. None: it was closed, and
        what is on disk counts again."""
        _, task, relative = self._holding(path) or (None, None, "")
        if task:
            task.idle.clear()
            task.edited(relative, text)

    async def index(self, root: str | Path, progress: Progress | None = None) -> IndexProgress:
        """Open ``root`` as trusted if it is not open, and wait until all of it is indexed.

        Raises RequestError for a root that is open and not trusted."""
        known = self._open.get(real_root(root))
        repository = known[0] if known else await self.open(root, trusted=True)
        task = self._open[repository.root][1]
        if task is None:
            raise RequestError(
                f"{repository.root} is open in an editor that does not trust it.",
                "Trust the workspace there first.",
            )
        if progress:
            self._delivery.listen(task, progress)
        try:
            await task.idle.wait()
        finally:
            if progress:
                self._delivery.unlisten(task, progress)
        return self._delivery.snapshot(task, done=True)

    async def forget(self, root: str | Path | None) -> None:
        """Delete the kept tokens of a root (None: all) and have the engine forget it; nothing
        more is written for it until it is opened anew. The store's rows are purged by the store."""
        folder = None if root is None else real_root(root)
        for repository, task in self._open.values():
            if task and folder in (None, repository.root):
                task.keep = False
        self._delivery.send(DropRepository(None if folder is None else str(folder)))
        if self._cache:
            await asyncio.to_thread(remove_caches, self._cache, folder)

    def pause(self) -> None:
        """Stop indexing until ``resume``; changes are noticed meanwhile."""
        self._indexer.pause(True)

    def resume(self) -> None:
        self._indexer.pause(False)

    async def stop(self) -> None:
        """Close everything; threads have ended when this returns."""
        for root in list(self._open):
            await self.close(root)
        await asyncio.to_thread(self._indexer.stop)

    def _holding(self, path: str | Path) -> tuple[Repository, Task | None, str] | None:
        """The innermost repository around a path, its task, and the path relative to its root."""
        given = Path(path)
        for candidate in (given, real_file(given)):
            for folder in candidate.parents:
                if folder in self._open:
                    relative = candidate.relative_to(folder).as_posix()
                    return (*self._open[folder], relative)
        return None


def real_root(root: str | Path) -> Path:
    """A root by its real path, so that one folder is opened once whatever it is called."""
    return expanded(root).resolve()


def real_file(path: Path) -> Path:
    """A file by its folder's real path; a symlink itself stays what it is."""
    return path.parent.resolve() / path.name
