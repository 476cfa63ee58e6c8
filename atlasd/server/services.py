"""What the HTTP side asks of the daemon, so that it can be served by anything that has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aiohttp import web

from atlasd.config import Config
from atlasd.server.auth import Access
from atlasd.server.meter import Meter

if TYPE_CHECKING:
    from atlasd.completion.chat import ChatTemplate
    from atlasd.completion.completer import Completer
    from atlasd.completion.ports import Engine
    from atlasd.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Serving:
    """A model that is ready: everything a request needs of it."""

    name: str
    engine: Engine
    tokenizer: Tokenizer
    completer: Completer
    chat: ChatTemplate
    slots: int
    slot_tokens: int
    created: int
    """Unix time at which the model became ready."""

    def encode_prompt(self, text: str) -> list[int]:
        """The tokens of a prompt in which control tokens are meant as such, with the tokens that
        every prompt of this model begins with."""
        tokens = self.tokenizer.encode(text, special=True)
        start = list(self.tokenizer.prefix_ids)
        return tokens if tokens[: len(start)] == start else start + tokens


class Services(Protocol):
    """The daemon, as the server sees it."""

    config: Config
    meter: Meter
    access: Access | None
    """The rules of the TCP listener; None where there is none."""

    @property
    def state(self) -> str:
        """``loading``, ``ready``, ``failed``, ``stopped`` (idle; loads on request), ``paused``."""
        ...

    @property
    def model_name(self) -> str: ...

    @property
    def serving(self) -> Serving | None: ...

    def use(self) -> AbstractAsyncContextManager[Serving]:
        """The ready model for the length of one request. Loads it where it was unloaded, waits
        for it within bounds; raises HTTPError 503 when it cannot be had."""
        ...

    def progress(self) -> dict[str, Any]:
        """``{state, stage, fraction}``, with ``error`` where loading failed."""
        ...

    def watch_progress(self) -> AsyncIterator[dict[str, Any]]:
        """``progress`` now and at every change, until the daemon ends."""
        ...

    async def status(self) -> dict[str, Any]: ...

    async def engine_status(self) -> dict[str, Any] | None:
        """What the engine says of itself; None where it is away or does not answer."""
        ...

    async def why(self, id: str | None) -> dict[str, Any] | None: ...

    async def fate(self, id: str, fate: str, accepted_length: int | None) -> None: ...

    async def pause(self) -> None: ...

    async def resume(self) -> None: ...

    async def set_drafting(self, on: bool) -> None: ...

    async def open_workspaces(
        self, opened: list[tuple[Path, bool]], closed: list[Path]
    ) -> None: ...

    def repositories(self) -> list[dict[str, Any]]: ...

    def note_edit(self, path: str, text: str | None) -> None: ...

    def index(self, path: Path) -> AsyncIterator[dict[str, Any]]: ...

    async def stored(self, repository: str | None) -> dict[str, Any]: ...

    def export(self, repository: str | None) -> AsyncIterator[dict[str, Any]]: ...

    async def purge(self, repository: str | None) -> dict[str, int]: ...

    def stop(self) -> None:
        """End the daemon once the current answer is out."""
        ...

    async def stopping_within(self, seconds: float) -> bool:
        """Wait so long; True, and at once, if the daemon is ending. Who only looks on stops then:
        ending waits for answers in progress."""
        ...


SERVICES: web.AppKey[Services] = web.AppKey("services")


def services(request: web.Request) -> Services:
    """The daemon behind a request."""
    return request.app[SERVICES]
