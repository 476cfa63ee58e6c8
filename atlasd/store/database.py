"""What atlasd remembers, in one SQLite file; every call goes through one writer thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from atlasd.store.rows import Accepted, Fate, FileRow, LearnedRow, StoredCompletion


class Store:
    """``await Store.open(path)``; raises ``StoreError`` when the file is damaged or newer than this
    program. A call that returned has its data on disk (survives kill -9 and power loss)."""

    @classmethod
    async def open(cls, path: Path, *, retention_days: int = 90) -> Store: ...

    async def close(self) -> None: ...

    # completions

    async def add_completion(self, completion: StoredCompletion) -> None:
        """Nothing is stored for untrusted workspaces; secrets in the text are masked."""
        ...

    async def fate(self, id: str, fate: Fate, accepted_length: int | None = None) -> str:
        """Record what became of a completion. Returns the text accepted so far ("" if none);
        ``accepted_length`` counts code points from the start and is cumulative."""
        ...

    async def accepted(self, repository: str | None, limit: int = 200) -> list[Accepted]:
        """Accepted text of a repository (None: all), newest first."""
        ...

    async def fates(self, repository: str | None = None) -> dict[str, int]:
        """How many completions met which fate."""
        ...

    # files and generations

    async def files(self, repository: str) -> dict[str, FileRow]: ...

    async def put_files(self, repository: str, rows: list[FileRow]) -> None:
        """Insert or replace; a changed hash raises the file's generation by one."""
        ...

    async def drop_files(self, repository: str, paths: list[str]) -> None: ...

    # learned state

    async def save_learned(self, row: LearnedRow) -> None:
        """Keep the engine's ``Learned`` payload (``confidence``, ``recycle``, …)."""
        ...

    async def learned(self, model: str) -> list[LearnedRow]:
        """All that was learned with this model key (model and tokenizer); other keys stay hidden."""
        ...

    async def save_costs(self, machine: str, model: str, payload: bytes) -> None: ...

    async def costs(self, machine: str, model: str) -> bytes | None: ...

    async def save_threads(self, machine: str, model: str, threads: int) -> None: ...

    async def threads(self, machine: str, model: str) -> int | None: ...

    # looking at it, taking it along, removing it

    async def summary(self, repository: str | None = None) -> dict[str, object]:
        """Per repository: files, tokens, completions by fate, learned state, bytes; the file's."""
        ...

    def export(self, repository: str | None = None) -> AsyncIterator[dict[str, object]]:
        """Every row with its ``table``; bytes as base64."""
        ...

    async def purge(self, repository: str | None = None) -> dict[str, int]:
        """Remove a repository (None: everything) so that no byte of its text stays in the file.
        Returns how many rows went, by table."""
        ...
