"""The daemon's side of the engine: submits streams to its process and asks it questions."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence

from atlasd.engine.framing import pack_tokens
from atlasd.engine.protocol import (
    AskStatus,
    DropRepository,
    Explain,
    Explanation,
    Failed,
    Finished,
    FromEngine,
    Learned,
    Load,
    Loading,
    Priority,
    Ready,
    Reload,
    Reloaded,
    Restore,
    Sampling,
    SetDrafting,
    Status,
    Submit,
    ToEngine,
    Tokens,
)
from atlasd.engine.stream import EngineStream
from atlasd.engine.supervision import Notice, Stopped, Supervision
from atlasd.errors import EngineError

log = logging.getLogger(__name__)

COSTS = "costs"
"""Learned state that belongs to the machine, not to any repository."""

Answer = Status | Explanation | Reloaded


class EngineClient(Supervision):
    """One engine process and the streams in it. All methods belong to the event loop's thread.

    Streams may be submitted in any state but ``failed``: they wait until the model is loaded
    (``submit`` starts a stopped engine if it is ``accepting``) and can be cancelled meanwhile. If
    the process dies, the streams in it end with EngineError and it is started again; those still
    waiting go on waiting. If it hangs, it is ended, and the next one is asked the same.
    """

    def __init__(self, load: Load | None = None) -> None:
        super().__init__(load)
        self.last_used = time.monotonic()
        self.accepting = True
        """False: nothing that is asked for may start the process, because it is to stay away."""
        self._ids = itertools.count(1)
        self._streams: dict[int, EngineStream] = {}
        self._waiting: dict[int, EngineStream] = {}
        self._questions: dict[int, asyncio.Future[Answer]] = {}

    @property
    def active(self) -> int:
        """Streams in the engine or waiting for it."""
        return len(self._streams) + len(self._waiting)

    # Streams

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
    ) -> EngineStream:
        """Decode from a prompt. Returns at once; errors come with the iteration."""
        stream = EngineStream(
            Submit(
                stream=next(self._ids),
                tokens=pack_tokens(tokens),
                max_tokens=max_tokens,
                sampling=sampling or Sampling(),
                stop_tokens=list(stop_tokens),
                priority=priority,
                repository=repository,
                language=language,
                prediction=pack_tokens(prediction) if len(prediction) else b"",
                logprobs=logprobs,
                drafting=drafting,
                learn=learn,
                grammar=grammar,
                prefix_end=prefix_end,
            ),
            self,
        )
        self.last_used = time.monotonic()
        if self.state == "failed" and self.failure is not None:
            stream.fail(EngineError(self.failure.message, self.failure.hint))
        elif not self.accepting:
            stream.fail(EngineError("atlasd is paused or ending.", "Go on with: atlasd resume"))
        elif self.state == "ready" and not self._stopping:
            self._dispatch(stream)
        else:
            self._waiting[stream.stream] = stream
            if self.state == "stopped" and not self._stopping:
                self._start_soon()
        return stream

    def withdraw(self, stream: EngineStream) -> bool:
        """Take back a stream that still waits for the engine; False if it is not waiting."""
        return self._waiting.pop(stream.stream, None) is not None

    # Everything else

    def send(self, message: ToEngine) -> None:
        """Tell the engine something that is not answered: segments, learned state, drafting.

        Without a process the message is dropped, except what a later start must know: segments
        are sent again by their owner on ``Ready``. ``drain`` waits if much has piled up.
        """
        if isinstance(message, Restore):
            self._learned[message.kind, message.repository] = message.payload
        elif isinstance(message, DropRepository):
            self._forget(message.repository)
        elif isinstance(message, SetDrafting):
            self.load.drafting = message.on
        if self._process is not None:
            self._process.send(message)

    async def drain(self) -> None:
        """Wait until the engine has taken most of what was sent."""
        if self._process is not None:
            await self._process.drain()

    async def status(self) -> Status | None:
        """A snapshot of the engine, or None while it does not serve."""
        answer = await self._ask(lambda number: AskStatus(number))
        return answer if isinstance(answer, Status) else None

    async def explain(self, stream: EngineStream | int) -> list[dict[str, object]]:
        """The recent planned steps of a stream, oldest first; empty if they are not kept."""
        number = stream if isinstance(stream, int) else stream.stream
        answer = await self._ask(lambda request: Explain(request, number))
        return answer.steps if isinstance(answer, Explanation) else []

    async def reload(self, model: str) -> None:
        """Replace the target's weights in place by those of a folder or file of the same
        architecture and tokenizer, once the running streams have ended.

        Raises EngineError if that fails (the old weights go on serving) or nothing is loaded."""
        answer = await self._ask(lambda request: Reload(request, model))
        if not isinstance(answer, Reloaded):
            raise EngineError("No model is loaded whose weights could be replaced.")
        if answer.message:
            raise EngineError(answer.message, "Give weights of the same architecture.")
        self.load.model = model

    # Inside

    def _receive(self, message: FromEngine) -> None:
        match message:
            case Tokens() | Finished():
                stream = self._streams.get(message.stream)
                if stream is not None:
                    stream.deliver(message)
                    if isinstance(message, Finished):
                        del self._streams[message.stream]
                        self.last_used = time.monotonic()
            case Status() | Explanation() | Reloaded():
                question = self._questions.pop(message.request, None)
                if question is not None and not question.done():
                    question.set_result(message)
            case Learned():
                self._learned[message.kind, message.repository] = message.payload
                self._tell(message)
            case Loading():
                self._enter("loading", message)
                self._tell(message)
            case Ready():
                self.ready_info = message
                self._ready_at = self.last_used = time.monotonic()
                self._enter("ready", Loading("ready", 1.0))
                self._tell(message)
                waiting, self._waiting = self._waiting, {}
                for stream in waiting.values():
                    self._dispatch(stream)
            case Failed():
                self._fail(EngineError(message.message, message.hint))

    def _dispatch(self, stream: EngineStream) -> None:
        assert self._process is not None
        self._streams[stream.stream] = stream
        stream.sent_to(self._process)

    def _owes(self) -> bool:
        return bool(self._streams or self._questions)

    def _lost(self, error: EngineError, *, again: bool = False) -> None:
        streams, self._streams = self._streams, {}
        kept = {number: one for number, one in streams.items() if again and one.ask_again()}
        if kept:
            log.info("%d of its %d requests are asked again", len(kept), len(streams))
        self._waiting = kept | self._waiting
        for number in streams.keys() - kept.keys():
            streams[number].fail(error)
        if self.state == "failed":
            waiting, self._waiting = self._waiting, {}
            for stream in waiting.values():
                stream.fail(error)
        self._answer_all(error)

    def _forget(self, repository: str | None) -> None:
        for key in list(self._learned):
            if key[0] != COSTS and repository in (None, key[1]):
                del self._learned[key]

    def _ending(self) -> None:
        _cancel_all(self._waiting)

    def _stopped(self) -> None:
        _cancel_all(self._streams)
        self._answer_all(EngineError("The engine was stopped.", "Ask again to start it."))
        if self._waiting:
            self._start_soon()

    async def _ask(self, question: Callable[[int], AskStatus | Explain | Reload]) -> Answer | None:
        if self._process is None or self.state != "ready":
            return None
        number = next(self._ids)
        future: asyncio.Future[Answer]
        future = self._questions[number] = asyncio.get_running_loop().create_future()
        self._process.send(question(number))
        try:
            return await future
        except EngineError:
            return None
        finally:
            self._questions.pop(number, None)

    def _answer_all(self, error: EngineError) -> None:
        questions, self._questions = self._questions, {}
        for future in questions.values():
            if not future.done():
                future.set_exception(error)


def _cancel_all(streams: dict[int, EngineStream]) -> None:
    for stream in streams.values():
        stream.deliver(Finished(stream.stream, "cancelled", stream.known_stats))
    streams.clear()


__all__ = ["EngineClient", "EngineStream", "Notice", "Stopped"]
