"""The engine process: ``python -m atlasd.engine.worker FD``, started by ``engine.client``.

One thread runs the step loop and everything that learns; two more read and write the socket. With
nothing to do the process sleeps in a blocking read. It imports no torch itself: the decoder does,
where there are no kernels of our own.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections import deque
from time import monotonic

from atlasd.draft.registry import Drafting, as_tokens, installed_drafters
from atlasd.engine.calibration import KIND, Calibrations
from atlasd.engine.framing import EngineEnd
from atlasd.engine.loading import Progress, Served, load
from atlasd.engine.mailbox import Inbox, Outbox
from atlasd.engine.native import fastest_choose
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import (
    AddSegment,
    AskStatus,
    Cancel,
    DropRepository,
    DropSegment,
    Explain,
    Explanation,
    Failed,
    FromEngine,
    Learned,
    Load,
    Loading,
    Promote,
    Restore,
    SetDrafting,
    Shutdown,
    Status,
    Submit,
    ToEngine,
)
from atlasd.engine.steps import Engine
from atlasd.errors import AtlasdError
from atlasd.paths import Paths, paths

log = logging.getLogger(__name__)

SAVE_EVERY_S = 30.0
"""What was learned goes to the store this often, once the engine falls idle."""

IDLE_SLICE_MS = 5.0
"""A request that arrives while drafters tidy up waits at most this long."""

PROGRESS_EVERY_S = 0.05

Later = AddSegment | DropSegment | DropRepository | Restore
"""Messages that can wait until no stream is delayed by them. Their order is kept."""


class Worker:
    """A loaded model, its engine and its drafters, driven by messages."""

    def __init__(
        self,
        served: Served,
        calibrations: Calibrations,
        restored: list[Restore],
        folders: Paths,
        inbox: Inbox,
        outbox: Outbox,
        drafting: bool,
    ) -> None:
        self._served = served
        self._calibrations = calibrations
        self._restored = {(item.kind, item.repository): item for item in restored}
        self._folders = folders
        self._inbox = inbox
        self._outbox = outbox
        self._later: deque[Later] = deque()
        self._drafting: Drafting | None = None
        self._engine = Engine(
            served.loaded.decoder,
            outbox.put,
            costs=served.costs,
            choose=fastest_choose(),
            poll=self._take_urgent,
        )
        self._ending = False
        self._unsaved = not served.calibrated
        self._save_at = monotonic() if self._unsaved else monotonic() + SAVE_EVERY_S
        self._set_drafting(drafting)

    def serve(self) -> None:
        """Work until told to shut down."""
        self._announce()
        while not self._ending:
            self._take_urgent()
            if self._engine.busy:
                self._unsaved = True
                self._engine.step()
                self._do_later(1)
            elif self._later:
                self._do_later(16)
            elif self._unsaved and monotonic() >= self._save_at:
                self._save()
            elif self._drafting is None or not self._drafting.idle(IDLE_SLICE_MS):
                self._sleep()
        self._engine.cancel_all()
        self._save()
        if self._drafting is not None:
            self._drafting.save()
        self._served.loaded.decoder.close()

    # Messages

    def _sleep(self) -> None:
        """Wait for a message, or for the time to save."""
        wait = max(self._save_at - monotonic(), 0.001) if self._unsaved else None
        message = self._inbox.next(wait)
        if message is not None:
            self._take(message)

    def _take_urgent(self) -> None:
        while len(self._inbox) and (message := self._inbox.next(0)) is not None:
            self._take(message)

    def _take(self, message: ToEngine) -> None:
        match message:
            case Submit():
                self._engine.submit(message)
            case Cancel():
                self._engine.cancel(message.stream)
            case Promote():
                self._engine.promote(message.stream, message.priority)
            case AddSegment() | DropSegment() | DropRepository() | Restore():
                self._later.append(message)
            case AskStatus():
                self._outbox.put(self._status(message.request))
            case Explain():
                planning = self._engine.planning
                steps = planning.explain(message.stream) if planning is not None else []
                self._outbox.put(Explanation(message.request, steps))
            case SetDrafting():
                if message.on != (self._drafting is not None):
                    self._set_drafting(message.on)
                    # The daemon sends its segments again when the engine says what it drafts with.
                    self._announce()
            case Shutdown():
                self._ending = True
            case Load():
                log.error("a model is loaded already")

    def _do_later(self, most: int) -> None:
        for _ in range(min(most, len(self._later))):
            message = self._later.popleft()
            try:
                self._learn(message)
            except Exception:
                log.exception("%s could not be learned from", type(message).__name__)
            if len(self._inbox):
                return

    def _learn(self, message: Later) -> None:
        if isinstance(message, Restore):
            self._restored[message.kind, message.repository] = message
        elif isinstance(message, DropRepository):
            for kind, repository in list(self._restored):
                if kind != KIND and message.repository in (None, repository):
                    del self._restored[kind, repository]
            self._engine.slots.forget()
        if self._drafting is None:
            return
        match message:
            case AddSegment():
                self._drafting.add_segment(
                    message.segment,
                    message.repository,
                    message.kind,
                    as_tokens(message.tokens),
                    message.language,
                )
            case DropSegment():
                self._drafting.drop_segment(message.segment, message.repository)
            case DropRepository():
                self._drafting.drop_repository(message.repository)
            case Restore():
                self._drafting.restore(message.kind, message.repository, message.payload)
        self._unsaved = True

    # State

    def _set_drafting(self, on: bool) -> None:
        if not on:
            self._engine.set_planning(None)
            if self._drafting is not None:
                self._save()
                self._drafting.save()
            self._drafting = None
            return
        served = self._served
        self._drafting = Drafting(
            vocab_size=served.loaded.decoder.vocab_size,
            fingerprint=served.fingerprint,
            costs=served.costs,
            folder=self._folders.cache / "drafting" / served.fingerprint,
            extra=installed_drafters(),
        )
        for item in self._restored.values():
            self._drafting.restore(item.kind, item.repository, item.payload)
        self._engine.set_planning(Planning(self._drafting.controller, served.costs))

    def _announce(self) -> None:
        drafting = self._drafting
        names = [drafter.name for drafter in drafting.drafters] if drafting is not None else []
        self._outbox.put(self._served.ready(names))

    def _status(self, request: int) -> Status:
        engine, drafting = self._engine, self._drafting
        memory = dict(self._served.loaded.decoder.memory_bytes())
        sources = engine.counters.sources
        if drafting is not None:
            memory |= drafting.memory_bytes()
            sources = drafting.sources() or sources
        return Status(
            request=request,
            streams=engine.streams,
            queued=engine.queued,
            counters=engine.counters.values,
            memory=memory,
            step_ms=engine.costs.by_bucket(),
            sources=sources,
        )

    def _save(self) -> None:
        """Hand what was learned to the daemon, which keeps it in the store."""
        self._unsaved, self._save_at = False, monotonic() + SAVE_EVERY_S
        self._calibrations.put(self._served.key, self._served.calibration())
        learned: list[tuple[str, str | None, bytes]] = [(KIND, None, self._calibrations.payload())]
        if self._drafting is not None:
            learned += self._drafting.learned()
        for kind, repository, payload in learned:
            self._restored[kind, repository] = Restore(kind, repository, payload)
            self._outbox.put(Learned(kind, repository, payload))


def run(end: EngineEnd, folders: Paths) -> None:
    """Load what the daemon asks for and serve it."""
    inbox, outbox = Inbox(end), Outbox(end)
    calibrations, restored = Calibrations(), list[Restore]()
    message = inbox.next()
    while not isinstance(message, Load):
        if isinstance(message, Restore):
            restored.append(message)
            if message.kind == KIND:
                calibrations.restore(message.payload)
        message = inbox.next()
    try:
        served = load(message, calibrations, folders, _progress(outbox))
        worker = Worker(
            served, calibrations, restored, folders, inbox, outbox, drafting=message.drafting
        )
    except Exception as error:
        outbox.put(_failed(error))
    else:
        inbox.serving = True
        worker.serve()
    outbox.close()


def _progress(outbox: Outbox) -> Progress:
    said = ("", 0.0)

    def progress(stage: str, fraction: float) -> None:
        nonlocal said
        now = monotonic()
        if stage != said[0] or now - said[1] > PROGRESS_EVERY_S:
            said = stage, now
            outbox.put(Loading(stage, fraction))

    return progress


def _failed(error: Exception) -> FromEngine:
    if isinstance(error, AtlasdError):
        return Failed(error.message, error.hint)
    if isinstance(error, MemoryError):
        return Failed("The model does not fit in memory.", "Choose a smaller one.")
    log.error("the model cannot be loaded", exc_info=error)
    return Failed(f"The model cannot be loaded: {error}.", "See the log.")


def main() -> None:
    """Entry point; the argument is the number of the inherited socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    run(EngineEnd(socket.socket(fileno=int(sys.argv[1]))), paths())
    logging.shutdown()
    # Libraries may take seconds to unload; the daemon waits for the memory.
    os._exit(0)


if __name__ == "__main__":
    main()
