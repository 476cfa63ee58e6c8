"""What completion needs of its neighbours: tokenizer, engine, workspace and store, as protocols,
so that tests can script them and nothing here imports an implementation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Protocol

from atlasd.engine.protocol import Priority, Sampling, StreamStats, Tokens


class TextTokenizer(Protocol):
    """The part of ``models.tokenizer.Tokenizer`` that is used here."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def eos_ids(self) -> Sequence[int]: ...

    @property
    def chat_template(self) -> str | None: ...

    def encode(self, text: str, special: bool = False) -> list[int]: ...

    def decode(self, ids: Sequence[int]) -> str: ...

    def token_bytes(self, token: int, /) -> bytes: ...

    def token_id(self, text: str, /) -> int | None: ...


class EngineStream(Protocol):
    """A stream being decoded: iterate for verified tokens; ``stats`` and ``reason`` are there
    once the iteration has ended."""

    @property
    def stats(self) -> StreamStats | None: ...

    @property
    def reason(self) -> str | None: ...

    def __aiter__(self) -> AsyncIterator[Tokens]: ...

    def cancel(self) -> None: ...

    def promote(self, priority: Priority) -> None: ...


class Engine(Protocol):
    """The part of ``engine.client.EngineClient`` that is used here."""

    def submit(
        self,
        tokens: Sequence[int],
        *,
        max_tokens: int,
        sampling: Sampling = ...,
        stop_tokens: Sequence[int] = ...,
        priority: Priority = ...,
        repository: str | None = ...,
        language: str | None = ...,
        prediction: Sequence[int] = ...,
        logprobs: int = ...,
        drafting: bool = ...,
        learn: bool = ...,
    ) -> EngineStream: ...

    def send(self, message: Any, /) -> None: ...


class Definition(Protocol):
    """Where a name is defined in a repository, with the text of the definition."""

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def line(self) -> int: ...

    @property
    def text(self) -> str: ...


class Edit(Protocol):
    """A region that was edited recently."""

    @property
    def path(self) -> str: ...

    @property
    def text(self) -> str: ...

    @property
    def at(self) -> float: ...


class Repository(Protocol):
    """The part of ``workspace.Repository`` that is used here; paths are relative to ``root``."""

    @property
    def root(self) -> Any: ...

    @property
    def name(self) -> str: ...

    @property
    def trusted(self) -> bool: ...

    @property
    def files(self) -> Any: ...

    def text(self, path: str, /) -> str | None: ...

    def defining(self, names: Sequence[str], /) -> Sequence[Definition]: ...

    def recent(self, limit: int, /) -> Sequence[Edit]: ...

    def similar(
        self, identifiers: Sequence[str], exclude: Any, limit: int
    ) -> Sequence[tuple[str, float]]: ...


class Workspace(Protocol):
    """The part of ``workspace.Workspace`` that is used here."""

    def repository_of(self, path: str, /) -> Repository | None: ...


class Store(Protocol):
    """Where completions and their fate are kept."""

    async def add_completion(self, row: Mapping[str, object], /) -> None: ...

    async def set_fate(
        self, completion_id: str, fate: str, accepted_length: int | None = None
    ) -> None: ...
