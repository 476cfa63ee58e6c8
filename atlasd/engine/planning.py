"""The engine's side of drafting: asks the controller, tells it what was accepted, keeps records.

A drafter that raises costs its stream the draft, never the stream.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from atlasd.draft.controller import Controller
from atlasd.draft.drafter import EMPTY, FirstChoices, StreamView, VerifiedRows
from atlasd.draft.plan import Record
from atlasd.draft.planner import Prepared
from atlasd.draft.taken import TakenSteps
from atlasd.engine.batch import Part
from atlasd.engine.beside import Beside
from atlasd.engine.clock import StepClock
from atlasd.engine.costs import StepCosts
from atlasd.engine.deciding import Decided
from atlasd.engine.pace import Pace, Usual
from atlasd.engine.streams import Stream
from atlasd.models.decoder import Float32

log = logging.getLogger(__name__)

MAX_ROWS = 64
"""Rows of one decoding step, drafts included."""

KEPT_STREAMS, KEPT_STEPS = 32, 256
"""Records that can be asked for by ``explain``: of so many streams, so many steps each."""

COSTS_STAY = 512
"""Uses of looked-up step costs after which they are looked up again: they are being measured."""

PATIENCE = 3
"""After this many failures in a row drafting is switched off."""

RESTING: dict[str, object] = {
    "candidates": [],
    "lookahead": 0,
    "reason": "drafting rests: in this stream it has cost more than it gained",
}


@dataclass(slots=True, eq=False)
class _Drafted:
    """What is kept of a running stream."""

    pace: Pace
    records: deque[Record | None]
    told: int = 0
    """How many of its tokens the drafters know."""
    spent_ms: float = 0.0
    """What planning its last step took, and learning from the one before."""


class Ahead(NamedTuple):
    """How the next steps of a stream that decodes alone may be taken together."""

    steps: int
    """So many at most."""
    prepared: Prepared | None = None
    """What they plan with; None: they are plain."""
    planned: int = 0
    """So many of them, the first; plain ones follow if these bring nothing."""


class Planning:
    """Drafting for the step loop. ``costs`` are those of the engine; without them every step is
    planned, whether that pays or not."""

    def __init__(
        self,
        controller: Controller,
        costs: StepCosts | None = None,
        clock: StepClock | None = None,
    ) -> None:
        self.on = True
        self._now = (clock or StepClock()).own
        self._controller = controller
        self._costs = costs
        self._usual = Usual()
        self.beside, self.beside_native = Beside(), Beside()
        """Of steps one by one, and of those taken together."""
        self.calling = Beside()
        """Of a call that takes plain steps together."""
        self.spent_ms = 0.0
        """All that planning and learning took so far."""
        self.once_ms = 0.0
        """What taking streams up and ending them took."""
        self._failures = 0
        self._drafted: dict[int, _Drafted] = {}
        self._known_ms: dict[tuple[int, int], float] = {}
        self._known_uses = 0
        self._records: OrderedDict[int, deque[Record | None]] = OrderedDict()

    @property
    def taken_ms(self) -> float:
        """All that drafting took so far."""
        return self.spent_ms + self.once_ms

    # These two run in every step, with caches that the step before has emptied: few calls, so.

    def plan(self, parts: list[Part]) -> None:
        """Give drafts to the parts that can take one."""
        due: list[Part] = []
        drafted: list[_Drafted] = []
        for part in parts:
            stream = part.stream
            if part.logits and stream.drafting:
                kept = self._drafted.get(stream.number) or self._first(stream)
                if self._costs is None or kept.pace.due(stream.begun, stream.draft_limit):
                    due.append(part)
                    drafted.append(kept)
                else:
                    kept.records.append(None)
        if not due:
            return
        started = self._now()
        if self._costs is not None:
            self._controller.take_beside(self.beside.engine_ms)
        try:
            # Those that take no draft take their rows; short prompts that join may fill a step.
            room = max(0, MAX_ROWS - sum([part.pending for part in parts]))
            views: list[StreamView] = []
            limits: list[int] = []
            for part, kept in zip(due, drafted, strict=True):
                stream = part.stream
                view = stream.view
                started = self._ready(stream, kept, started)
                part.planned = True
                views.append(view)
                limits.append(stream.draft_limit)
            plan = self._controller.plan(views, room, limits)
            record = plan.record
            for index, draft in enumerate(plan.drafts):
                if draft.tokens:
                    part, limit = due[index], limits[index]
                    if len(draft.tokens) > limit:
                        draft = replace(draft, tokens=draft.tokens[: max(limit, 0)])
                    part.give(draft)
                    part.stream.stats.foreseen += record.foreseen(index, len(draft.tokens))
                drafted[index].records.append(record)
            self._failures = 0
        except Exception:
            self._failed("planning a step")
            return
        spent_ms = (self._now() - started) * 1e3
        self.spent_ms += spent_ms
        share = spent_ms / len(due)
        for part, kept in zip(due, drafted, strict=True):
            part.stream.stats.draft_ms += share
            kept.spent_ms += share

    def settle(
        self,
        part: Part,
        accepted: int,
        verified: list[int],
        logits: Float32 | Decided,
        step_ms: float,
    ) -> None:
        """Tell the drafters what the target chose after ``part``; ``verified`` is in the stream."""
        stream, started = part.stream, self._now()
        kept = self._drafted.get(stream.number)
        if kept is None:  # planned by the one before this
            return
        try:
            rows = _told_by(part, accepted, verified, logits)
            self._controller.settle(stream.view, part.draft, accepted, verified, rows, step_ms)
        except Exception:
            self._failed("learning from a step")
        kept.told = len(stream.view.tokens)
        beside_ms, drafted = self.beside.engine_ms, len(part.draft.tokens)
        self._judge(kept, stream, part.pending, drafted, accepted, beside_ms, kept.spent_ms)
        kept.spent_ms = 0.0
        self._spent(stream, kept, started)

    def ahead(self, stream: Stream, most: int) -> Ahead | None:
        """How the next ``most`` steps of a stream that decodes alone may be taken together; None:
        they may not."""
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
        rests = len(taken.each) - taken.planned
        if taken.planned or asks:
            self._took_planned(stream, kept, taken, asks)
        kept.pace.rested(rests)
        kept.records.extend([None] * rests)

    def _took_planned(self, stream: Stream, kept: _Drafted, taken: TakenSteps, asks: bool) -> None:
        started, before_ms = self._now(), kept.spent_ms / max(1, taken.planned)
        for one in taken.each[: taken.planned]:
            stream.stats.foreseen += one.foreseen
            stream.stats.draft_ms += one.planning_ms
            self.spent_ms += one.planning_ms
            spent_ms, beside_ms = before_ms + one.planning_ms, self.beside_native.engine_ms
            self._judge(kept, stream, 1, one.drafted, one.accepted, beside_ms, spent_ms)
        if taken.planned:
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
        self.beside_native.stepped(others_ms / len(taken.each))
        if not taken.planned:
            if share == 1.0:
                self.calling.stepped(call_ms)
        elif self.calling.engine_ms and (kept := self._drafted.get(stream.number)) is not None:
            kept.spent_ms += max(0.0, call_ms - share * self.calling.engine_ms)

    def end(self, stream: Stream) -> None:
        """The stream is over."""
        kept = self._drafted.get(stream.number)
        if stream.begun and kept is not None:
            stream.begun = False
            started = self._now()
            try:
                self._catch_up(stream)
                self._controller.end(stream.view)
            except Exception:
                self._failed("ending a stream")
            self._took(stream, kept, (self._now() - started) * 1e3 + kept.spent_ms)
            kept.pace.ended()
        self._drafted.pop(stream.number, None)

    def explain(self, number: int) -> list[dict[str, object]]:
        """The kept steps of a stream, oldest first."""
        records = self._records.get(number, ())
        return [RESTING if record is None else record.explain(number) for record in records]

    def _judge(
        self,
        kept: _Drafted,
        stream: Stream,
        pending: int,
        drafted: int,
        accepted: int,
        beside_ms: float,
        spent_ms: float,
    ) -> None:
        """What a planned step has brought goes to the stream's pace."""
        if self._costs is None:
            return
        gained_ms, plain_ms = 0.0, self._ms(pending, stream.fed)
        if drafted:
            saved_ms = plain_ms + beside_ms
            gained_ms = plain_ms + accepted * saved_ms - self._ms(pending + drafted, stream.fed)
        kept.pace.settled(gained_ms, spent_ms, plain_ms)

    def _spent(self, stream: Stream, kept: _Drafted, started: float) -> None:
        """Planning or learning went on since then; the stream's next step is charged with it."""
        spent_ms = (self._now() - started) * 1e3
        kept.spent_ms += spent_ms
        self.spent_ms += spent_ms
        stream.stats.draft_ms += spent_ms

    def _first(self, stream: Stream) -> _Drafted:
        """A stream is met for the first time, or drafting was off and on again."""
        records = self._records[stream.number] = deque[Record | None](maxlen=KEPT_STEPS)
        if len(self._records) > KEPT_STREAMS:
            self._records.popitem(last=False)
        kept = _Drafted(Pace(self._usual.of(stream.view)), records)
        self._drafted[stream.number] = kept
        return kept

    def _ready(self, stream: Stream, kept: _Drafted, started: float) -> float:
        """Have the drafters know of the stream and of all its tokens; the time from which on what
        is done belongs to its next step."""
        if not stream.begun:
            stream.begun = True
            kept.told = len(stream.view.tokens)
            self._controller.begin(stream.view)
            # Once in a stream: what it costs is not what the next steps will.
            began = self._now()
            self._took(stream, kept, (began - started) * 1e3)
            return began
        if kept.told < len(stream.view.tokens):
            self._catch_up(stream)
        return started

    def _took(self, stream: Stream, kept: _Drafted, spent_ms: float) -> None:
        """Taking a stream up or ending it took so long."""
        self.once_ms += spent_ms
        stream.stats.draft_ms += spent_ms
        if self._costs is not None:
            kept.pace.took(spent_ms, self._ms(1, stream.fed))

    def _catch_up(self, stream: Stream) -> None:
        """Tell the drafters of tokens that were decoded while they rested."""
        kept, length = self._drafted[stream.number], len(stream.view.tokens)
        if kept.told < length:
            unknown = stream.view.tokens[kept.told :]
            kept.told = length
            self._controller.settle(stream.view, EMPTY, 0, unknown, None, 0.0)

    def _ms(self, rows: int, kv_tokens: int) -> float:
        """What a step costs; looked up now and then."""
        self._known_uses += 1
        if self._known_uses > COSTS_STAY:
            self._known_uses = 0
            self._known_ms.clear()
        key = rows, kv_tokens >> 9
        known = self._known_ms.get(key)
        if known is None:
            assert self._costs is not None
            known = self._known_ms[key] = self._costs.ms(rows, kv_tokens)
        return known

    def _failed(self, doing: str) -> None:
        self._failures += 1
        log.exception("a drafter failed while %s", doing)
        if self._failures >= PATIENCE:
            self.on = False
            log.error("drafting is off after %d failures in a row", self._failures)


def _told_by(
    part: Part, accepted: int, verified: list[int], logits: Float32 | Decided
) -> VerifiedRows | None:
    """The target's first choice at every row, where the verified tokens do not say it all: behind
    a rejection, and where the target samples."""
    sampler = part.stream.sampler
    rejected = len(logits) > len(verified) > accepted
    if not rejected and (part.stream.view.temperature == 0.0 or len(logits) < 2):
        return None
    after = [part.stream.tokens[-1 - len(verified)], *part.draft.tokens]
    if isinstance(logits, Decided):
        top = logits.top[:, :1].copy()
        return VerifiedRows(np.array(after, np.int32), top, np.zeros((len(top), 0), np.float32))
    best = sampler.best
    if len(best) < len(logits):
        best = best + logits[len(best) :].argmax(axis=1).tolist()
    return FirstChoices(after, best)
