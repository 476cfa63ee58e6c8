"""A loaded model, its step loop and its drafters, driven by the daemon's messages.

With nothing to do the thread sleeps in a blocking read. What is learned from a workspace waits
for gaps between steps, so that no stream is delayed by it.
"""

from __future__ import annotations

import logging
from time import monotonic

from atlasd.draft.registry import Drafting
from atlasd.engine.assembly import drafting_for, replace_weights
from atlasd.engine.backlog import Backlog
from atlasd.engine.calibration import KIND, Calibrations
from atlasd.engine.compiling import Compiled, Compiler
from atlasd.engine.costs import ROWS
from atlasd.engine.loading import Served, clock_of
from atlasd.engine.mailbox import Inbox, Outbox
from atlasd.engine.measure import Recheck
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
    Learned,
    Load,
    Promote,
    Reload,
    Reloaded,
    Restore,
    SetDrafting,
    Shutdown,
    Status,
    Submit,
    ToEngine,
)
from atlasd.engine.reloading import Reloading
from atlasd.engine.steps import Engine
from atlasd.paths import Paths

log = logging.getLogger(__name__)

SAVE_EVERY_S = 30.0
"""What was learned goes to the store this often, once the engine falls idle."""

IDLE_SLICE_MS = 1.0
"""Drafters tidy up and learn for so long at a time, or for one unit of their work, which is two to
five milliseconds: a request that arrives meanwhile waits no longer."""

PATIENCE_S = 1.0
"""While completions are decoded, learning from the workspace gets a turn this often."""

LOOKS = 2
"""Comparisons of step costs after the engine falls idle, a few steps each."""


class Service:
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
        self._folders = folders
        self._inbox = inbox
        self._outbox = outbox
        self._drafting: Drafting | None = None
        self._clock = clock_of(served.loaded)
        self._engine = Engine(
            served.loaded.decoder,
            outbox.put,
            costs=served.costs,
            choose=fastest_choose(),
            clock=self._clock,
            poll=self._take_urgent,
            interrupt=inbox.arrived,
        )
        self._backlog = Backlog(
            restored, lambda: len(inbox) > 0, lambda: self._engine.slots.forget()
        )
        self._recheck = Recheck(served.loaded.decoder, served.costs, self._clock)
        self._looks = 0
        self._compiler = Compiler(served.files, served.loaded.decoder.vocab_size, inbox.put)
        self._compiling: dict[int, Submit] = {}
        self._constrained = False
        """A stream was held to a constraint, so others will be."""
        self._ending = False
        self._door = Reloading(self._engine)
        self._learned_at = monotonic()
        self._unsaved = not served.calibrated
        self._save_at = monotonic() if self._unsaved else monotonic() + SAVE_EVERY_S
        self._set_drafting(drafting)

    def serve(self) -> None:
        """Work until told to shut down."""
        self._announce()
        while not self._ending:
            self._take_urgent()
            if self._door.due:
                self._replace_weights(self._door.take())
            elif self._engine.busy:
                self._unsaved, self._looks = True, LOOKS
                self._engine.step()
                if not self._engine.urgent or monotonic() - self._learned_at > PATIENCE_S:
                    self._do_later(1)
            elif self._backlog:
                self._do_later(16)
            elif self._looks:
                self._looks -= 1
                self._look()
            elif self._unsaved and monotonic() >= self._save_at:
                self._save()
            elif worked_s := self._learn():
                self._sleep(worked_s)  # learning leaves half of the time to others
            else:
                self._sleep()
        self._engine.cancel_all()
        self._save()
        if self._drafting is not None:
            self._drafting.save()
        self._served.loaded.decoder.close()

    def _learn(self) -> float:
        """A slice of what drafters do in idle time; about how many seconds it took, 0 where nothing
        is left."""
        began = monotonic()
        more = self._drafting is not None and self._drafting.idle(IDLE_SLICE_MS)
        return max(monotonic() - began, IDLE_SLICE_MS / 1e3) if more else 0.0

    def _look(self) -> None:
        """Compare step costs while the machine is as busy as it was a moment ago."""
        place = self._engine.slots.unread(max(ROWS))
        if place is not None and self._drafting is not None:
            self._recheck.look(*place)

    # Messages

    def _sleep(self, most: float | None = None) -> None:
        """Wait for a message, or for the time to save, at most so many seconds."""
        wait = max(self._save_at - monotonic(), 0.001) if self._unsaved else most
        wait = wait if most is None or wait is None else min(wait, most)
        message = self._inbox.next(wait)
        if message is not None:
            self._take(message)

    def _take_urgent(self) -> None:
        self._inbox.arrived.value = 0  # before looking, or a message in between would be missed
        while len(self._inbox) and (message := self._inbox.next(0)) is not None:
            self._take(message)

    def _take(self, message: ToEngine | Compiled) -> None:
        match message:
            case Submit():
                self._submit(message)
            case Compiled():
                self._compiled(message)
            case Reload():
                if (before := self._door.ask(message)) is not None:
                    self._outbox.put(Reloaded(before.request, "Newer weights came."))
            case Cancel():
                if (waiting := self._compiling.pop(message.stream, None)) is not None:
                    self._engine.refuse(waiting, "cancelled")
                self._door.cancel(message.stream)
            case Promote():
                if (waiting := self._compiling.get(message.stream)) is not None:
                    waiting.priority = message.priority
                self._door.promote(message.stream, message.priority)
            case AddSegment() | DropSegment() | DropRepository() | Restore():
                self._backlog.put(message)
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

    def _submit(self, submit: Submit) -> None:
        if not submit.grammar:
            self._door.admit(submit)
            return
        self._compiling[submit.stream] = submit
        self._compiler.compile(submit)

    def _compiled(self, compiled: Compiled) -> None:
        submit = self._compiling.pop(compiled.submit.stream, None)
        if submit is None:
            return
        if compiled.error is not None:
            self._engine.refuse(submit, "error", str(compiled.error))
            return
        self._constrained = True
        if self._drafting is not None:
            self._drafting.expect_constraints()
        self._door.admit(submit, compiled.constraint)

    def _do_later(self, most: int) -> None:
        self._learned_at = monotonic()
        if self._backlog.work(most, self._drafting):
            self._unsaved = True

    # Weights

    def _replace_weights(self, reload: Reload) -> None:
        """Serve the target's new weights; whatever is wrong with them costs nothing."""
        try:
            replace_weights(self._served, self._engine, self._drafting, reload.model, self._folders)
        except Exception as error:
            log.error("the weights cannot be replaced", exc_info=error)
            self._outbox.put(Reloaded(reload.request, f"The weights cannot be replaced: {error}"))
        else:
            decoder = self._served.loaded.decoder
            self._recheck = Recheck(decoder, self._served.costs, self._clock)
            self._outbox.put(Reloaded(reload.request))
        self._door.release()

    # State

    def _set_drafting(self, on: bool) -> None:
        self._backlog.leave_off()
        if not on:
            self._engine.set_planning(None)
            if self._drafting is not None:
                self._save()
                self._drafting.save()
            self._drafting = None
            return
        served = self._served
        self._drafting = drafting_for(served, self._engine, self._folders)
        self._backlog.restore(self._drafting)
        if self._constrained:
            self._drafting.expect_constraints()
        self._engine.set_planning(Planning(self._drafting.controller, served.costs, self._clock))

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
            self._backlog.keep(kind, repository, payload)
            self._outbox.put(Learned(kind, repository, payload))
