"""The life of the engine process, as the daemon sees it: start, crash, hang, restart, stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import msgspec

from atlasd.engine.liveness import LOOK_S, Liveness
from atlasd.engine.process import EngineProcess
from atlasd.engine.protocol import (
    AskStatus,
    Failed,
    FromEngine,
    Learned,
    Load,
    Loading,
    Ready,
    Restore,
)
from atlasd.errors import EngineError

log = logging.getLogger(__name__)

State = Literal["stopped", "loading", "ready", "failed"]

RESTART_PAUSES_S = (0.0, 1.0, 5.0, 15.0)
"""Pauses before the restarts after crashes in a row; after the last one the engine has failed."""

STEADY_AFTER_S = 60.0
"""A process that served this long ends a row of crashes."""

STEADY_AFTER_HANG_S = 1800.0
"""Or of hangs, each of which takes far longer to see than a crash."""

ANYBODY_THERE = 0
"""The number of a question that nobody waits for: its answer shows that the engine lives."""


class Stopped(msgspec.Struct):
    """Told to subscribers when the process has ended; ``message`` is empty if it was asked to."""

    message: str = ""


Notice = Loading | Ready | Failed | Learned | Stopped


class Supervision(ABC):
    """Keeps one engine process alive from ``start`` to ``stop``. Learned state is kept here and
    given back to every new process."""

    def __init__(self, load: Load | None = None) -> None:
        self.load = load or Load()
        """What the next start will load; change it while the engine is stopped."""
        self.state: State = "stopped"
        self.loading = Loading("stopped", 0.0)
        self.ready_info: Ready | None = None
        self.failure: EngineError | None = None
        self.restarts = 0
        self._learned: dict[tuple[str, str | None], bytes] = {}
        self._subscribers: list[Callable[[Notice], None]] = []
        self._changed = asyncio.Event()
        self._process: EngineProcess | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self._alive: Liveness | None = None
        self._hung = ""
        """Why the process is being ended, if it is because it hangs."""
        self._crashes = 0
        self._ready_at = 0.0
        self._stopping = False
        self._life = asyncio.Lock()
        self._pause = asyncio.Event()
        """Set when a pause before a restart should end."""

    async def start(self) -> None:
        """Start the process and return; ``wait_ready`` waits for the model. Safe to call twice."""
        async with self._life:
            if self._supervisor is None or self._supervisor.done():
                self._start_soon()

    async def stop(self, timeout: float = 10.0) -> None:
        """End the process, so that its memory is given back; learned state is handed over first.

        Streams in it end as cancelled. Returns once the process is gone, after ``timeout`` seconds
        by SIGKILL. A stream that is submitted meanwhile waits, and starts the engine again.
        """
        async with self._life:
            supervisor, self._supervisor = self._supervisor, None
            self._stopping = True
            self._ending()
            try:
                if supervisor is not None:
                    if self._process is None:
                        # About to start a process, or in a pause before it: neither is needed.
                        self._pause.set()
                        await asyncio.wait({supervisor}, timeout=timeout)
                    if self._process is not None:
                        # While it loads there is nothing to save.
                        await self._process.end(timeout if self.state == "ready" else 0.0)
                    await supervisor
            finally:
                if supervisor is not None:
                    supervisor.cancel()
                self._enter("stopped", Loading("stopped", 0.0))
                self._tell(Stopped())
                self._stopping = False
                self._stopped()

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
    def silent_s(self) -> float:
        """For how long the engine has owed an answer; 0 while all is well."""
        return self._alive.silent_s if self._alive is not None else 0.0

    def subscribe(self, callback: Callable[[Notice], None]) -> Callable[[], None]:
        """Be told of loading, readiness, failure, learned state and the end of the process.

        Returns a function that ends the subscription.
        """
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    # For the client

    @abstractmethod
    def _receive(self, message: FromEngine) -> None:
        """The process said something."""

    @abstractmethod
    def _owes(self) -> bool:
        """Whether an engine that is ready has something to answer."""

    @abstractmethod
    def _lost(self, error: EngineError, *, again: bool = False) -> None:
        """The process is gone with all that was in it; ``again``: the next one may be asked the
        same."""

    @abstractmethod
    def _ending(self) -> None:
        """The process is about to be stopped: what waits for it will not be served by it."""

    @abstractmethod
    def _stopped(self) -> None:
        """The process was stopped; what was submitted meanwhile may start another."""

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
            self._alive, self._hung = Liveness(process.pid), ""
            watching = asyncio.create_task(self._watch(process, self._alive))
            try:
                await self._hear(process)
                if not self._stopping and self.state != "failed":
                    self._enter("loading", Loading("restarting", 0.0))
            finally:
                watching.cancel()
                self._alive = None
                try:
                    ended = await process.kill()
                except EngineError as error:
                    self._fail(error)
                self._process = None
            if self._stopping or self.state == "failed":
                return
            ended = self._hung or ended
            over = self._crashes_are_over()
            self._lost(
                EngineError(ended, "It is being started again; ask again."), again=bool(self._hung)
            )
            self._tell(Stopped(ended))
            if over:
                self._crashes = 0
            if self._crashes == len(RESTART_PAUSES_S):
                self._fail(EngineError(ended, "See the log; `atlasd doctor` checks the model."))
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESTART_PAUSES_S[self._crashes]):
                    await self._pause.wait()
            self._crashes += 1
            self.restarts += 1

    async def _hear(self, process: EngineProcess) -> None:
        """Take in what the process says, until it ends or says what cannot be taken in: that is a
        crash as any other, and its streams must end."""
        try:
            async for message in process.messages():
                if self._alive is not None:
                    self._alive.answered()
                self._receive(message)
        except Exception:
            log.exception("The engine is ended: what it said cannot be taken in")

    async def _watch(self, process: EngineProcess, alive: Liveness) -> None:
        """End a process that owes an answer and hangs."""
        asked_at = -1
        while not alive.hangs(loading=self.state == "loading"):
            answers = alive.answers
            await asyncio.sleep(LOOK_S)
            if self._stopping or (self.state == "ready" and not self._owes()):
                alive.owes_nothing()
                continue
            if alive.answers != answers:
                continue
            if self.state == "ready" and asked_at != answers:
                asked_at = answers
                process.send(AskStatus(ANYBODY_THERE))
            at_work = await asyncio.to_thread(alive.at_work)
            if at_work is not None and answers == alive.answers:
                alive.silent(at_work=at_work)
        self._hung = (
            f"The engine process (pid {process.pid}) hung and was ended: it did not answer for"
            f" {alive.silent_s:.0f} s, and did nothing in {alive.still_s:.0f} of them."
        )
        await process.end_hung()

    def _crashes_are_over(self) -> bool:
        """Whether the process that has just ended served for long enough before."""
        ready_at, self._ready_at = self._ready_at, 0.0
        steady_after = STEADY_AFTER_HANG_S if self._hung else STEADY_AFTER_S
        return bool(ready_at) and time.monotonic() - ready_at > steady_after

    def _fail(self, error: EngineError) -> None:
        self.failure = error
        self._enter("failed", Loading("failed", 0.0))
        self._lost(error)
        self._tell(Failed(error.message, error.hint))

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
