"""What is stored, while no daemon runs: read from and removed from the files themselves.

Whoever has stopped atlasd for good must not have to start it to remove what it kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atlasd import cached
from atlasd.listeners import Lock
from atlasd.paths import Paths
from atlasd.store.database import Store
from atlasd.workspace.tokencache import remove_caches


@asynccontextmanager
async def _opened(folders: Paths) -> AsyncIterator[Store | None]:
    """The store, and no daemon can start meanwhile; None where nothing was ever stored."""
    if not folders.database.exists():
        yield None
        return
    folders.create()
    lock = Lock(folders)
    try:
        store = await Store.open(folders.database)
        try:
            yield store
        finally:
            await store.close()
    finally:
        lock.release()


def show(folders: Paths, repository: str | None) -> dict[str, Any]:
    """In the shape of ``GET /atlasd/v1/data``."""

    async def look() -> dict[str, Any]:
        async with _opened(folders) as store:
            found = await store.summary(repository) if store else NOTHING
            return {**found, "database": str(folders.database)}

    cache = folders.cache
    return {**asyncio.run(look()), "cache": cached.summary(cache), "kept": cached.kept(cache)}


def export(folders: Paths, repository: str | None) -> Iterator[dict[str, Any]]:
    """Every row with its ``table``."""

    async def rows() -> list[dict[str, Any]]:
        async with _opened(folders) as store:
            return [row async for row in store.export(repository)] if store else []

    yield from asyncio.run(rows())


def purge(folders: Paths, repository: str | None) -> dict[str, int]:
    """Remove the rows and the cached files; how many went, by table."""

    async def remove() -> dict[str, int]:
        async with _opened(folders) as store:
            return await store.purge(repository) if store else {}

    # First, because removing rows takes room, of which a full disk has none left.
    root = None if repository is None else Path(repository)
    files = remove_caches(folders.cache / "tokens", root) + cached.purge(folders.cache, repository)
    removed = asyncio.run(remove())
    return {**removed, "cached files": files} if files else removed


NOTHING: dict[str, Any] = {
    "bytes": 0,
    "completions": {},
    "repositories": [],
    "learned": [],
    "machines": [],
}
