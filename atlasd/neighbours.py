"""The daemon's neighbours: its store and its workspace, opened a moment after the socket answers.
Who asks for them earlier waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atlasd import cached
from atlasd.errors import RequestError, StoreError
from atlasd.paths import Paths
from atlasd.supervisor import Supervisor
from atlasd.sweeping import Sweeping

if TYPE_CHECKING:
    from atlasd.store.database import Store
    from atlasd.workspace.workspace import IndexProgress, Workspace

log = logging.getLogger(__name__)

PROGRESS_POLL_S = 0.1


class Neighbours:
    """What the server asks of the store and the workspace; the daemon's half of
    ``server.services.Services`` that needs no model."""

    def __init__(self, paths: Paths, supervisor: Supervisor) -> None:
        self.paths = paths
        self.supervisor = supervisor
        self.store: Store | None = None
        self.workspace: Workspace | None = None
        self._opened = asyncio.Event()
        self._sweeping: Sweeping | None = None

    async def open_neighbours(self) -> None:
        """Open both; without a store, completions still work."""
        from atlasd.store.database import Store
        from atlasd.workspace.workspace import Workspace

        try:
            self.store = await Store.open(self.paths.database)
        except StoreError as error:
            # `atlasd doctor` and the status say what is wrong.
            log.error("%s", error)
        engine = self.supervisor.engine
        self.workspace = Workspace(
            send=engine.send,
            drain=engine.drain,
            busy=lambda: self.supervisor.in_use > 0,
            store=self.store,
            cache=self.paths.cache,
        )
        self.supervisor.attach(self.store, self.workspace)
        self._sweeping = Sweeping(self.paths.cache, self.supervisor, self.workspace, self.store)
        self._opened.set()

    async def close_neighbours(self) -> None:
        if self._sweeping is not None:
            self._sweeping.stop()
        if self.workspace is not None:
            await self.workspace.stop()
        if self.store is not None:
            await self.store.close()

    # The workspace

    async def _opened_workspace(self) -> Workspace:
        await self._opened.wait()
        assert self.workspace is not None
        return self.workspace

    async def open_workspaces(self, opened: list[tuple[Path, bool]], closed: list[Path]) -> None:
        workspace = await self._opened_workspace()
        failure: RequestError | None = None
        for root, trusted in opened:
            try:
                await workspace.open(root, trusted)
            except RequestError as error:
                # The other roots of the same editor are opened all the same.
                failure = error
        for root in closed:
            await workspace.close(root)
        if self._sweeping is not None:
            self._sweeping.mark_opened()
        if failure is not None:
            raise failure

    def repositories(self) -> list[dict[str, Any]]:
        opened = self.workspace.repositories if self.workspace is not None else []
        return [
            {
                "root": str(one.root),
                "files": len(one.files),
                "tokens": one.tokens,
                "state": one.state,
                "trusted": one.trusted,
                "notice": one.notice,
            }
            for one in opened
        ]

    def note_edit(self, path: str, text: str | None) -> None:
        if self.workspace is not None:
            self.workspace.note_edit(path, text)

    async def index(self, path: Path) -> AsyncIterator[dict[str, Any]]:
        workspace = await self._opened_workspace()
        steps: asyncio.Queue[IndexProgress] = asyncio.Queue()
        indexing = asyncio.create_task(workspace.index(path, steps.put_nowait))
        try:
            while not indexing.done() or not steps.empty():
                with contextlib.suppress(TimeoutError):
                    step = asdict(await asyncio.wait_for(steps.get(), PROGRESS_POLL_S))
                    if not step["done"]:
                        yield {name: step[name] for name in ("files", "total", "tokens", "path")}
            last = asdict(await indexing)
            yield {name: last[name] for name in ("done", "files", "tokens", "seconds")}
        finally:
            indexing.cancel()

    # The store

    async def _opened_store(self) -> Store:
        await self._opened.wait()
        if self.store is None:
            raise StoreError("The database could not be opened.", "See: atlasd doctor")
        return self.store

    async def stored(self, repository: str | None) -> dict[str, Any]:
        store = await self._opened_store()
        folders = await asyncio.to_thread(cached.summary, self.paths.cache)
        return {
            **await store.summary(repository),
            "database": str(self.paths.database),
            "cache": folders,
            "kept": cached.kept(self.paths.cache),
        }

    async def export(self, repository: str | None) -> AsyncIterator[dict[str, Any]]:
        async for row in (await self._opened_store()).export(repository):
            yield row

    async def purge(self, repository: str | None) -> dict[str, int]:
        await (await self._opened_workspace()).forget(repository)
        if self.supervisor.serving is not None:
            self.supervisor.serving.completer.clear()
        # First, because removing rows takes room, of which a full disk has none left.
        files = await asyncio.to_thread(cached.purge, self.paths.cache, repository)
        removed = await (await self._opened_store()).purge(repository)
        return {**removed, "cached files": files} if files else removed
