"""What atlasd remembers, in one SQLite file; every call goes through one writer thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from atlasd.store import completions, export, files, learned, purge
from atlasd.store.rows import Accepted, Fate, FileRow, LearnedRow, StoredCompletion
from atlasd.store.writer import Writer

if TYPE_CHECKING:
    from sqlite_utils.db import Database

T = TypeVar("T")
RETENTION_DAYS = 90
RETENTION_ROWS = 200_000


class Store:
    """``await Store.open(path)``; raises ``StoreError`` when the file is damaged or newer than this
    program. A call that returned has its data on disk: it survives kill -9 and power loss."""

    def __init__(self, writer: Writer, retention_days: int = RETENTION_DAYS) -> None:
        self._writer = writer
        self._retention_days = retention_days
        self._retained = 0.0

    @classmethod
    async def open(cls, path: Path, *, retention_days: int = RETENTION_DAYS) -> Store:
        writer = Writer(path)
        await asyncio.wrap_future(writer.opened)
        store = cls(writer, retention_days)
        await store.retain(retention_days)
        return store

    @property
    def path(self) -> Path:
        return self._writer.path

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.close)

    async def _run(self, run: Callable[[Database], T], *, alone: bool = False) -> T:
        return await asyncio.wrap_future(self._writer.submit(run, alone=alone))

    # completions

    async def add_completion(self, completion: StoredCompletion) -> None:
        """Nothing is stored for untrusted workspaces; secrets in the text are masked."""
        await self._run(lambda db: completions.add(db, completion))
        if time.monotonic() - self._retained > 86400:
            await self.retain(self._retention_days)

    async def set_fate(self, id: str, fate: Fate, accepted_length: int | None = None) -> str:
        """Record what became of a completion. Returns the text accepted so far ("" if none);
        ``accepted_length`` counts code points from the start and is cumulative."""
        return await self._run(lambda db: completions.set_fate(db, id, fate, accepted_length))

    async def accepted(self, repository: str | None, limit: int = 200) -> list[Accepted]:
        """Accepted text of a repository (None: all), newest first."""
        return await self._run(lambda db: completions.accepted(db, repository, limit))

    async def fates(self, repository: str | None = None) -> dict[str, int]:
        """How many completions met which fate; ``pending`` are those nothing was heard of."""
        return await self._run(lambda db: completions.fates(db, repository))

    async def retain(self, days: int = RETENTION_DAYS, rows: int = RETENTION_ROWS) -> int:
        """Remove what is from before the last ``days`` days of use or beyond ``rows``; returns how
        many rows went."""

        def retain(db: Database) -> int:
            before = completions.first_of_last_days(db, days)
            return learned.forget_stale(db, before) + completions.retain(db, days, rows)

        self._retained = time.monotonic()
        return await self._run(retain)

    # files and generations

    async def files(self, repository: str) -> dict[str, FileRow]:
        return await self._run(lambda db: files.known(db, repository))

    async def put_files(self, repository: str, rows: list[FileRow]) -> None:
        """Insert or replace; a changed hash raises the file's generation by one."""
        await self._run(lambda db: files.put(db, repository, rows))

    async def drop_files(self, repository: str, paths: list[str]) -> None:
        await self._run(lambda db: files.drop(db, repository, paths))

    # learned state

    async def save_learned(self, row: LearnedRow) -> None:
        """Keep the engine's ``Learned`` payload (``confidence``, ``recycle``, …)."""
        await self._run(lambda db: learned.save(db, row))

    async def learned(self, model: str) -> list[LearnedRow]:
        """All that was learned under this key of model and tokenizer, and nothing else."""
        return await self._run(lambda db: learned.of_model(db, model))

    async def save_costs(self, machine: str, model: str, payload: bytes) -> None:
        """Keep what the engine measured here with a model: step costs and the thread count."""
        await self._run(lambda db: learned.save_costs(db, machine, model, payload))

    async def costs(self, machine: str, model: str) -> bytes | None:
        return await self._run(lambda db: learned.costs(db, machine, model))

    # looking at it, taking it along, removing it

    async def summary(self, repository: str | None = None) -> dict[str, object]:
        """Per repository: files, tokens, completions by fate, learned state; the file's bytes."""
        return await self._run(lambda db: export.summary(db, repository))

    async def roots(self) -> list[str]:
        """Every repository that is known."""
        return await self._run(completions.roots)

    async def export(self, repository: str | None = None) -> AsyncIterator[dict[str, object]]:
        """Every row with its ``table``, a page at a time; bytes as base64."""
        for table in export.TABLES:
            after = 0
            while True:
                rows, after = await self._run(_page(table, after, repository))
                if not rows:
                    break
                for row in rows:
                    yield row

    async def purge(self, repository: str | None = None) -> dict[str, int]:
        """Remove a repository (None: everything) so that no byte of its text stays in the file.
        Returns how many rows went, by table."""
        return await self._run(lambda db: purge.purge(db, repository), alone=True)


def _page(
    table: str, after: int, repository: str | None
) -> Callable[[Database], tuple[list[dict[str, object]], int]]:
    return lambda db: export.page(db, table, after, repository)
