"""Drafting for steps that a stream takes several at a time."""

from __future__ import annotations

from typing import NamedTuple

from atlasd.draft.planner import Prepared
from atlasd.draft.taken import TakenSteps
from atlasd.engine.judged import Drafted, Judged, Step
from atlasd.engine.streams import Stream

MAX_ROWS = 64
"""Rows of one decoding step, drafts included."""


class Ahead(NamedTuple):
    """How the next steps of a stream that decodes alone may be taken together."""

    steps: int
    """So many at most."""
    prepared: Prepared | None = None
    """What they plan with; None: they are plain."""
    planned: int = 0
    """So many of them, the first; plain ones follow if these bring nothing."""


class PlanningAhead(Judged):
    """How several steps are planned, and what is learned from them."""

    def ahead(self, stream: Stream, most: int) -> Ahead | None:
        """How the next ``most`` steps of a stream that decodes alone may be taken together; None:
        they may not."""
        self._wake()
        kept = self._drafted.get(stream.number) or self._first(stream)
        if self._costs is not None:
            rests = kept.pace.resting(stream.begun, stream.draft_limit)
            if rests:
                return Ahead(min(rests, most))
        started = self._now()
        try:
            started = self._ready(stream, kept, started)
            if self._costs is not None:
                self._controller.take_beside(self.beside_native.engine_ms)
            prepared = self._controller.prepare(stream.view, MAX_ROWS - 1)
        except Exception:
            self._failed("planning steps")
            return None
        self._spent(stream, kept, started)
        if prepared is None:
            return None
        # Where drafting does not pay for itself, it rests behind an attempt.
        pause = kept.pace.pause if self._costs is not None else 0
        return Ahead(min(1 + pause, most), prepared, 1) if pause else Ahead(most, prepared, most)

    def took(self, stream: Stream, taken: TakenSteps, asks: bool) -> None:
        """Steps were taken so, and their tokens are in the stream; ``asks``: a drafter is wanted
        next that native steps cannot ask."""
        kept = self._drafted.get(stream.number)
        if kept is None:
            return
        if taken.each or asks:
            self._took_planned(stream, kept, taken, asks)
        kept.rested(taken.plain)

    def _took_planned(self, stream: Stream, kept: Drafted, taken: TakenSteps, asks: bool) -> None:
        started, before_ms = self._now(), kept.spent_ms / max(1, len(taken.each))
        if taken.each:
            planning_ms = sum([one.planning_ms for one in taken.each])
            stream.stats.foreseen += sum([one.foreseen for one in taken.each])
            stream.stats.draft_ms += planning_ms
            self.spent_ms += planning_ms
            outcomes = [
                (one.drafted, one.accepted, before_ms + one.planning_ms) for one in taken.each
            ]
            step = Step(1, 1, 0, stream.fed)
            self._judge(kept, step, self.beside_native.engine_ms, outcomes)
            kept.spent_ms = 0.0
        told = taken.told()
        try:
            self._controller.took(stream.view, told, taken, asks)
            kept.records.extend(self._controller.records(taken))
            self._failures = 0
        except Exception:
            self._failed("learning from steps")
        kept.told += len(told)
        self._spent(stream, kept, started)

    def took_beside(
        self, stream: Stream, taken: TakenSteps, others_ms: float, call_ms: float, share: float
    ) -> None:
        """Steps that were taken together took ``others_ms`` beside rows and drafting, and calling
        them ``call_ms``. Where they took only a ``share`` of the time they had, or left more to do,
        drafting answers for it."""
        self.beside_native.stepped(others_ms / taken.steps)
        if not taken.each:
            if share == 1.0:
                self.calling.stepped(call_ms)
        elif (kept := self._drafted.get(stream.number)) is not None:
            usual_ms = self.calling.engine_ms or call_ms
            kept.spent_ms += max(0.0, call_ms - share * usual_ms)
