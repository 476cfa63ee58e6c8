"""The daemon's end of one stream: an async iterator of verified tokens."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Protocol

import msgspec

from atlasd.engine.protocol import (
    Cancel,
    Finished,
    Priority,
    Promote,
    StreamStats,
    Submit,
    ToEngine,
    Tokens,
)
from atlasd.errors import EngineError

TOKEN_BYTES = 4


class _Sender(Protocol):
    def send(self, message: ToEngine) -> None: ...


class _Owner(Protocol):
    def withdraw(self, stream: EngineStream) -> bool: ...


class EngineStream:
    """One stream being decoded; iterate once, to the end.

    ``reason`` (``stop``, ``length`` or ``cancelled``) and ``stats`` are known when the iteration
    has ended. The iteration raises EngineError if the stream failed or the engine died; what was
    verified before is delivered first. Leaving an ``async with`` block early cancels.
    """

    def __init__(self, submit: Submit, owner: _Owner) -> None:
        self.stream = submit.stream
        self.reason: str | None = None
        self.stats: StreamStats | None = None
        self._submit = submit
        self._prompt_tokens = len(submit.tokens) // TOKEN_BYTES
        self._priority = submit.priority
        self._owner = owner
        self._engine: _Sender | None = None
        self._arrived: deque[Tokens] = deque()
        self._error: EngineError | None = None
        self._wake: asyncio.Future[None] | None = None
        self._cancelled = False
        self._delivered = 0
        """Tokens that were delivered."""
        self._repeated = 0
        """Tokens the engine will say once more, because it was asked again."""
        self._asked_again = False

    def cancel(self) -> None:
        """Stop within one step; the iteration then ends with reason ``cancelled``."""
        if self.reason is not None:
            return
        self._cancelled = True
        if self._engine is not None:
            self._engine.send(Cancel(self.stream))
        elif self._owner.withdraw(self):
            self.deliver(Finished(self.stream, "cancelled", self.known_stats))

    def promote(self, priority: Priority) -> None:
        """Give the stream another priority from now on."""
        self._priority = priority
        if self.reason is None and self._engine is not None:
            self._engine.send(Promote(self.stream, priority))

    def __aiter__(self) -> EngineStream:
        return self

    async def __anext__(self) -> Tokens:
        while not self._arrived:
            if self._error is not None:
                raise self._error
            if self.reason is not None:
                raise StopAsyncIteration
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        return self._arrived.popleft()

    async def __aenter__(self) -> EngineStream:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cancel()

    # For the client

    @property
    def known_stats(self) -> StreamStats:
        """What the daemon itself knows of a stream that never reached the engine's end."""
        return StreamStats(prompt_tokens=self._prompt_tokens)

    def sent_to(self, engine: _Sender) -> None:
        """Hand the stream to an engine that serves."""
        self._engine = engine
        engine.send(msgspec.structs.replace(self._submit, priority=self._priority))

    def ask_again(self) -> bool:
        """The engine is gone, and the next one may be asked the same: it says the same tokens, so
        the iteration goes on as if nothing had been. Once; False if that, or the stream, is over.
        """
        if self._cancelled:
            self.deliver(Finished(self.stream, "cancelled", self.known_stats))
        if self.reason is not None or self._asked_again:
            return False
        self._asked_again, self._engine, self._repeated = True, None, self._delivered
        return True

    def deliver(self, message: Tokens | Finished) -> None:
        """What the engine said about this stream."""
        if isinstance(message, Tokens):
            self._arrive(message)
        elif self.reason is None:
            self.reason, self.stats = message.reason, message.stats
            if message.reason == "error":
                self._error = EngineError(message.message)
        self._notify()

    def fail(self, error: EngineError) -> None:
        """The engine is gone: what has arrived is still delivered, then ``error`` is raised."""
        if self.reason is None:
            self.reason, self._error = "error", error
            self.stats = self.known_stats
        self._notify()

    def _arrive(self, message: Tokens) -> None:
        count = len(message.tokens) // TOKEN_BYTES
        repeated = min(self._repeated, count)
        self._repeated -= repeated
        if repeated and repeated == count:
            return
        if repeated:
            tokens = message.tokens[repeated * TOKEN_BYTES :]
            message = Tokens(self.stream, tokens, message.logprobs[repeated:])
        self._delivered += count - repeated
        self._arrived.append(message)

    def _notify(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
