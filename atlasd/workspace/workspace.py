"""The repositories that are open: scanned, watched, indexed; each only as far as it is trusted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atlasd.engine.protocol import AddSegment, DropRepository, DropSegment
from atlasd.workspace.repository import Repository

if TYPE_CHECKING:
    from atlasd.store.database import Store

Segment = AddSegment | DropSegment | DropRepository
Send = Callable[[Segment], Awaitable[None] | None]
"""Gives a message to the engine; called on the event loop, awaited if it returns an awaitable."""
Tokenize = Callable[[list[str]], list[list[int]]]
"""``Tokenizer.encode_batch``; called on the indexing thread with small batches."""


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


class Workspace:
    """Multi-root. Nothing of a root that is not trusted is read, watched, indexed or stored."""

    def __init__(
        self,
        *,
        send: Send,
        busy: Callable[[], bool] = lambda: False,
        store: Store | None = None,
        cache: Path | None = None,
    ) -> None:
        """``busy`` says whether requests are being served: indexing stands still meanwhile.
        ``cache`` is a folder where tokenised files may be kept from run to run."""

    @property
    def repositories(self) -> list[Repository]: ...

    def use_tokenizer(self, tokenize: Tokenize, key: str) -> None:
        """From now on index with this tokenizer (``key``: its fingerprint); may be called again
        when the model changes, and then indexes everything anew."""
        ...

    def engine_started(self) -> None:
        """The engine is ready and knows nothing: give it every segment again."""
        ...

    async def open(self, root: str | Path, trusted: bool) -> Repository:
        """Open a root, or change its trust; scanning, watching and indexing go on behind."""
        ...

    async def close(self, root: str | Path) -> None: ...

    def repository_of(self, path: str | Path) -> Repository | None:
        """The innermost open repository that holds an absolute path."""
        ...

    def note_edit(self, path: str | Path, text: str) -> None:
        """An open buffer changed: ``text`` is all of it, saved or not."""
        ...

    async def index(self, root: str | Path, progress: Progress | None = None) -> IndexProgress:
        """Open ``root`` as trusted if it is not open, and wait until all of it is indexed."""
        ...

    def pause(self) -> None:
        """Stop indexing until ``resume``; watching goes on."""
        ...

    def resume(self) -> None: ...

    async def stop(self) -> None:
        """Close everything; threads have ended when this returns."""
        ...
