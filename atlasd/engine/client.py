"""The daemon's side of the engine: starts and supervises its process, submits streams."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from atlasd.engine.framing import pack_tokens
from atlasd.engine.process import EngineProcess
from atlasd.engine.protocol import (
    AskStatus,
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
    Restore,
    Sampling,
    SetDrafting,
    Status,
    Submit,
    ToEngine,
    Tokens,
)
from atlasd.engine.stream import EngineStream
from atlasd.errors import EngineError

State = Literal["stopped", "loading", "ready", "failed"]

RESTART_PAUSES_S = (0.0, 1.0, 5.0, 15.0)
"""Pauses before the restarts after crashes in a row; after the last one the engine has failed."""

STEADY_AFTER_S = 60.0
"""A process that served this long ends a row of crashes."""


class Stopped(msgspec.Struct):
    """Told to subscribers when the process has ended; ``message`` is empty if it was asked to."""

    message: str = ""


Notice = Loading | Ready | Failed | Learned | Stopped


class EngineClient:
    """One engine process and the streams in it. All methods belong to the event loop's thread.

    Streams may be submitted in any state but ``failed``: they wait until the model is loaded
    (``submit`` starts a stopped engine) and can be cancelled meanwhile. If the process dies, the
    streams in it end with EngineError and it is started again; those still waiting go on waiting.
    Learned state is kept here and given back to the new process.
    """

    def __init__(self, load: Load | None = None) -> None:
        self.load = load or Load()
        """What the next start will load; change it while the engine is stopped."""
        self.state: State = "stopped"
        self.loading = Loading("stopped", 0.0)
        self.ready_info: Ready | None = None
        self.failure: EngineError | None = None
        self.restarts = 0
        self.last_used = time.monotonic()
        self._ids = itertools.count(1)
        self._streams: dict[int, EngineStream] = {}
        self._waiting: dict[int, EngineStream] = {}
        self._questions: dict[int, asyncio.Future[Status | Explanation]] = {}
        self._learned: dict[tuple[str, str | None], bytes] = {}
        self._subscribers: list[Callable[[Notice], None]] = []
        self._changed = asyncio.Event()
        self._process: EngineProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._crashes = 0
        self._ready_at = 0.0
        self._stopping = False
        self._life = asyncio.Lock()
        self._pause = asyncio.Event()
        """Set when a pause before a restart should end."""

    # Life of the process

    async def start(self) -> None:
        """Start the process and return; ``wait_ready`` waits for the model. Safe to call twice."""
        async with self._life:
            if self._supervisor is None or self._supervisor.done():
                self._start_soon()

    async def stop(self, timeout: float = 5.0) -> None:
        """End the process, so that its memory is given back; learned state is handed over first.

        Streams in it end as cancelled. Returns once the process is gone, after ``timeout`` seconds
        by SIGKILL. A stream that is submitted meanwhile waits, and starts the engine again.
        """
        async with self._life:
            supervisor, self._supervisor = self._supervisor, None
            self._stopping = True
            self._cancel_all(self._waiting)
            try:
                if supervisor is not None:
                    if self._process is None:
                        # About to start a process, or in a pause before it: neither is needed.
                        self._pause.set()
                        await asyncio.wait({supervisor}, timeout=timeout)
                    if self._process is not None:
                        await self._process.end(timeout)
                    await supervisor
            finally:
                if supervisor is not None:
                    supervisor.cancel()
                self._cancel_all(self._streams)
                self._answer_all(EngineError("The engine was stopped.", "Ask again to start it."))
                self._enter("stopped", Loading("stopped", 0.0))
                self._tell(Stopped())
                self._stopping = False
                if self._waiting:
                    self._start_soon()

    async def wait_ready(self) -> Ready:
        """Wait until the model serves. Raises EngineError if it cannot be loaded, or is stopped."""
        while True:
            if self.state == "ready" and self.ready_info is not None:
                return self.ready_info
            if self.state == "failed" and self.failure is not None:
                raise EngineError(self.failure.message, self.failure.hint)
            if self.state == "stopped":
                raise EngineError("The engine is stopped.", "Start it first.")
            await self._changed.wait()

    @property
    def pid(self) -> int | None:
        """The engine's process id while there is one."""
        return self._process.pid if self._process is not None else None

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
            ),
            self,
        )
        self.last_used = time.monotonic()
        if self.state == "failed" and self.failure is not None:
            stream.fail(EngineError(self.failure.message, self.failure.hint))
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

    def subscribe(self, callback: Callable[[Notice], None]) -> Callable[[], None]:
        """Be told of loading, readiness, failure, learned state and the end of the process.

        Returns a function that ends the subscription.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    # Inside

    def _start_soon(self) -> None:
        self._crashes = 0
        self._stopping = False
        self._pause.clear()
        self.failure = None
        self._enter("loading", Loading("starting", 0.0))
        self._supervisor = asyncio.create_task(self._supervise())

    async def _supervise(self) -> None:
        """Run processes until one ends that was not meant to be replaced."""
        while not self._stopping:
            try:
                process = await EngineProcess.spawn()
            except OSError as error:
                self._fail(EngineError(f"The engine process cannot be started: {error}."))
                return
            self._process = process
            if self._stopping:
                await process.end(0.0)
            for (kind, repository), payload in self._learned.items():
                process.send(Restore(kind, repository, payload))
            process.send(self.load)
            try:
                async for message in process.messages():
                    self._receive(message)
            finally:
                ended = await process.kill()
                self._process = None
            if self._stopping or self.state == "failed":
                return
            self._lost(EngineError(ended, "It is being started again; ask again."))
            if self._ready_at and time.monotonic() - self._ready_at > STEADY_AFTER_S:
                self._crashes = 0
            self._ready_at = 0.0
            if self._crashes == len(RESTART_PAUSES_S):
                self._fail(EngineError(ended, "See the log; `atlasd doctor` checks the model."))
                return
            self._enter("loading", Loading("restarting", 0.0))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESTART_PAUSES_S[self._crashes]):
                    await self._pause.wait()
            self._crashes += 1
            self.restarts += 1

    def _receive(self, message: FromEngine) -> None:
        match message:
            case Tokens() | Finished():
                stream = self._streams.get(message.stream)
                if stream is not None:
                    stream.deliver(message)
                    if isinstance(message, Finished):
                        del self._streams[message.stream]
                        self.last_used = time.monotonic()
            case Status() | Explanation():
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

    def _lost(self, error: EngineError) -> None:
        streams, self._streams = self._streams, {}
        for stream in streams.values():
            stream.fail(error)
        self._answer_all(error)
        self._tell(Stopped(error.message))

    def _fail(self, error: EngineError) -> None:
        self.failure = error
        self._enter("failed", Loading("failed", 0.0))
        waiting, self._waiting = self._waiting, {}
        for stream in waiting.values():
            stream.fail(error)
        self._lost(error)
        self._tell(Failed(error.message, error.hint))

    async def _ask(
        self, question: Callable[[int], AskStatus | Explain]
    ) -> Status | Explanation | None:
        if self._process is None or self.state != "ready":
            return None
        number = next(self._ids)
        future: asyncio.Future[Status | Explanation]
        future = self._questions[number] = asyncio.get_running_loop().create_future()
        self._process.send(question(number))
        try:
            return await future
        except EngineError:
            return None
        finally:
            self._questions.pop(number, None)

    def _cancel_all(self, streams: dict[int, EngineStream]) -> None:
        for stream in streams.values():
            stream.deliver(Finished(stream.stream, "cancelled", stream.known_stats))
        streams.clear()

    def _answer_all(self, error: EngineError) -> None:
        questions, self._questions = self._questions, {}
        for future in questions.values():
            if not future.done():
                future.set_exception(error)

    def _enter(self, state: State, loading: Loading) -> None:
        self.state = state
        self.loading = loading
        if state != "ready":
            self.ready_info = None
        self._changed.set()
        self._changed = asyncio.Event()

    def _tell(self, notice: Notice) -> None:
        for callback in list(self._subscribers):
            callback(notice)


__all__ = ["EngineClient", "EngineStream", "Notice", "Stopped"]
