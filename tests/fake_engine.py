"""A scripted engine with the interface of ``EngineClient``, for tests of the daemon's parts.

    engine = FakeEngine()
    engine.enqueue([[1, 2], [3]])               # two Tokens messages, then reason "stop"
    engine.enqueue([[1]], reason="length")
    engine.enqueue([[1]], error="out of memory")
    engine.enqueue([[1], [2]], pause=0.05)      # seconds before each message
    engine.enqueue([[1]], hold=True)            # goes on until cancelled
    engine.enqueue(lambda submit: [[len(submit.tokens) // 4]])

What was asked is in ``submitted``, ``sent``, ``cancelled`` and ``promoted``. A stream for which
nothing was enqueued fails the test by its error.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from atlasd.engine.client import EngineClient
from atlasd.engine.framing import pack_tokens, unpack_tokens
from atlasd.engine.protocol import (
    Cancel,
    Failed,
    Finished,
    Learned,
    Load,
    Loading,
    Priority,
    Promote,
    Ready,
    Status,
    StreamStats,
    Submit,
    ToEngine,
    TokenLogprob,
    Tokens,
)
from atlasd.engine.stream import EngineStream
from atlasd.engine.supervision import Stopped
from atlasd.errors import EngineError

Batches = Sequence[Sequence[int]]

READY = Ready(
    model="fake",
    backend="fake",
    dtype="fp32",
    threads=1,
    slots=16,
    slot_tokens=4096,
    memory={"weights": 1, "slots": 1, "scratch": 1},
    drafters=["positions"],
)


@dataclass
class Script:
    """What one stream will say."""

    batches: Batches | Callable[[Submit], Batches]
    reason: str = "stop"
    error: str = ""
    pause: float = 0.0
    hold: bool = False
    logprobs: Sequence[Sequence[TokenLogprob]] = ()
    stats: StreamStats | None = None


class FakeEngine(EngineClient):
    """Says what was enqueued, in the order of submission. Ready from the beginning unless
    ``ready=False``; then ``become_ready`` or ``start`` makes it so."""

    def __init__(self, load: Load | None = None, *, ready: bool = True) -> None:
        super().__init__(load)
        self.scripts: deque[Script] = deque()
        self.submitted: list[Submit] = []
        self.sent: list[ToEngine] = []
        self.cancelled: list[int] = []
        self.promoted: list[tuple[int, Priority]] = []
        self.explanations: dict[int, list[dict[str, object]]] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        if ready:
            self.become_ready()

    def enqueue(
        self,
        batches: Batches | Callable[[Submit], Batches],
        *,
        reason: str = "stop",
        error: str = "",
        pause: float = 0.0,
        hold: bool = False,
        logprobs: Sequence[Sequence[TokenLogprob]] = (),
        stats: StreamStats | None = None,
    ) -> None:
        """Script the next stream that has none yet: its batches of tokens, then its end."""
        self.scripts.append(Script(batches, reason, error, pause, hold, logprobs, stats))

    @property
    def prompts(self) -> list[list[int]]:
        """The prompts submitted so far."""
        return [unpack_tokens(submit.tokens) for submit in self.submitted]

    def become_ready(self, ready: Ready = READY) -> None:
        self._receive(ready)

    def become_loading(self, stage: str = "reading weights", fraction: float = 0.5) -> None:
        self._receive(Loading(stage, fraction))

    def become_failed(self, message: str, hint: str = "") -> None:
        self._receive(Failed(message, hint))

    def learned(self, message: Learned) -> None:
        self._receive(message)

    def crash(self, message: str = "The engine process ended (signal SIGKILL).") -> None:
        """End the streams in flight as a crash does; call ``become_ready`` afterwards."""
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()
        self._enter("loading", Loading("restarting", 0.0))
        self._lost(EngineError(message, "It is being started again; ask again."))
        self._tell(Stopped(message))

    # The interface of EngineClient

    async def start(self) -> None:
        if self.state in ("stopped", "failed"):
            self.become_ready()

    async def stop(self, timeout: float = 5.0) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()
        self._ending()
        self._enter("stopped", Loading("stopped", 0.0))
        self._tell(Stopped())
        self._stopped()

    def send(self, message: ToEngine) -> None:
        self.sent.append(message)
        # What cannot be written on the wire must fail here as it does there.
        msgspec.msgpack.encode(message)
        match message:
            case Submit():
                self.submitted.append(message)
                task = asyncio.get_running_loop().create_task(self._run(message))
                self._tasks[message.stream] = task
                task.add_done_callback(lambda _: self._tasks.pop(message.stream, None))
            case Cancel():
                self.cancelled.append(message.stream)
                self._cancel(message.stream)
            case Promote():
                self.promoted.append((message.stream, message.priority))

    async def drain(self) -> None:
        await asyncio.sleep(0)

    async def status(self) -> Status | None:
        if self.state != "ready":
            return None
        return Status(
            request=0,
            streams=len(self._streams),
            queued=0,
            counters={"tokens": 0.0},
            memory={"weights": 1},
            step_ms={"1": 1.0},
            sources={},
        )

    async def explain(self, stream: EngineStream | int) -> list[dict[str, object]]:
        return self.explanations.get(stream if isinstance(stream, int) else stream.stream, [])

    # Inside

    def _start_soon(self) -> None:
        self.become_ready()
        waiting, self._waiting = self._waiting, {}
        for stream in waiting.values():
            self._dispatch(stream)

    def _dispatch(self, stream: EngineStream) -> None:
        self._streams[stream.stream] = stream
        stream.sent_to(self)

    def _cancel(self, number: int) -> None:
        task = self._tasks.pop(number, None)
        if task is not None:
            task.cancel()
        if number in self._streams:
            self._receive(Finished(number, "cancelled", StreamStats()))

    async def _run(self, submit: Submit) -> None:
        number = submit.stream
        if not self.scripts:
            message = "nothing was enqueued for this stream"
            self._receive(Finished(number, "error", StreamStats(), message))
            return
        script = self.scripts.popleft()
        batches = script.batches(submit) if callable(script.batches) else script.batches
        prompt_tokens, output_tokens = len(submit.tokens) // 4, 0
        for index, batch in enumerate(batches):
            await asyncio.sleep(script.pause)
            batch = list(batch)[: submit.max_tokens - output_tokens]
            output_tokens += len(batch)
            logprobs = list(script.logprobs[index]) if index < len(script.logprobs) else []
            self._receive(Tokens(number, pack_tokens(batch), logprobs))
            if output_tokens == submit.max_tokens:
                break
        if script.hold:
            await asyncio.Event().wait()
        reason = "error" if script.error else script.reason
        if not script.error and output_tokens == submit.max_tokens:
            reason = "length"
        stats = script.stats or StreamStats(
            prompt_tokens=prompt_tokens, output_tokens=output_tokens, steps=len(batches)
        )
        self._receive(Finished(number, reason, stats, script.error))
