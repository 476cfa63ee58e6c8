"""What completion needs of its neighbours: tokenizer, engine, workspace and store, as protocols,
so that tests can script them and nothing here depends on an implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from atlasd.engine.protocol import Priority, Sampling, StreamStats, ToEngine, Tokens

if TYPE_CHECKING:
    from atlasd.store.rows import Fate, StoredCompletion
    from atlasd.workspace.repository import Definition, Edit


class TextTokenizer(Protocol):
    """The part of ``models.tokenizer.Tokenizer`` that is used here."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_ids(self) -> Sequence[int]: ...

    @property
    def prefix_ids(self) -> Sequence[int]: ...

    @property
    def chat_template(self) -> str | None: ...

    def encode(self, text: str, special: bool = False) -> list[int]: ...

    def token_bytes(self, id: int) -> bytes: ...

    def token_id(self, text: str) -> int | None: ...


class EngineStream(Protocol):
    """A stream being decoded: iterate for verified tokens; ``stats`` and ``reason`` are there
    once the iteration has ended. Iterating raises EngineError if the stream failed."""

    @property
    def stream(self) -> int: ...

    @property
    def stats(self) -> StreamStats | None: ...

    @property
    def reason(self) -> str | None: ...

    def __aiter__(self) -> AsyncIterator[Tokens]: ...

    def cancel(self) -> None: ...

    def promote(self, priority: Priority) -> None: ...


class Engine(Protocol):
    """The part of ``engine.client.EngineClient`` that is used here."""

    @property
    def state(self) -> str: ...

    def submit(
        self,
        tokens: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling | None = None,
        stop_tokens: Sequence[int] = (),
        priority: Priority = Priority.COMPLETION,
        repository: str | None = None,
        language: str | None = None,
        prediction: Sequence[int] = (),
        logprobs: int = -1,
        drafting: bool = True,
        learn: bool = True,
        grammar: str = "",
        prefix_end: int = 0,
    ) -> EngineStream: ...

    def send(self, message: ToEngine) -> None: ...


class Repository(Protocol):
    """The part of ``workspace.Repository`` that is used here; paths are relative to ``root``."""

    @property
    def root(self) -> Path: ...

    @property
    def name(self) -> str: ...

    @property
    def trusted(self) -> bool: ...

    @property
    def files(self) -> list[str]: ...

    def withholds(self, path: str) -> bool: ...

    def text(self, path: str) -> str | None: ...

    def defining(self, names: Iterable[str], limit: int = 8) -> list[Definition]: ...

    def recent(self, limit: int = 8) -> list[Edit]: ...

    def similar(
        self, identifiers: Iterable[str], exclude: Iterable[str] = (), limit: int = 4
    ) -> list[tuple[str, float]]: ...


class Workspace(Protocol):
    """The part of ``workspace.Workspace`` that is used here."""

    def repository_of(self, path: str | Path) -> Repository | None: ...


class Store(Protocol):
    """The part of ``store.Store`` that is used here."""

    async def add_completion(self, completion: StoredCompletion) -> None: ...

    async def set_fate(self, id: str, fate: Fate, accepted_length: int | None = None) -> str: ...
