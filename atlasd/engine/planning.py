"""The engine's side of drafting: asks the controller, tells it what was accepted, keeps records.

A drafter that raises costs its stream the draft, never the stream.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from dataclasses import replace

import numpy as np

from atlasd.draft.controller import Controller
from atlasd.draft.drafter import EMPTY, VerifiedRows
from atlasd.draft.plan import StepRecord
from atlasd.engine.batch import Part
from atlasd.engine.clock import StepClock
from atlasd.engine.costs import StepCosts
from atlasd.engine.deciding import Decided
from atlasd.engine.pace import Pace
from atlasd.engine.streams import Stream
from atlasd.models.decoder import Float32

log = logging.getLogger(__name__)

MAX_ROWS = 64
"""Rows of one decoding step, drafts included."""

KEPT_STREAMS, KEPT_STEPS = 32, 256
"""Records that can be asked for by ``explain``: of so many streams, so many steps each."""

PATIENCE = 3
"""After this many failures in a row drafting is switched off."""

RESTING: dict[str, object] = {
    "candidates": [],
    "lookahead": 0,
    "reason": "drafting rests: in this stream it has cost more than it gained",
}


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
        self._usual_ms = 0.0
        self._streams = 0
        self._failures = 0
        self._paces: dict[int, Pace] = {}
        self._told: dict[int, int] = {}
        """By stream, how many of its tokens the drafters know."""
        self._spent_ms: dict[int, float] = {}
        self._records: OrderedDict[int, deque[StepRecord | None]] = OrderedDict()

    def plan(self, parts: list[Part]) -> None:
        """Give drafts to the parts that can take one."""
        due = [p for p in parts if p.logits and p.stream.drafting and self._due(p.stream.number)]
        if not due:
            return
        started = self._now()
        try:
            for part in due:
                self._begin(part.stream)
            self._plan(due)
            self._failures = 0
        except Exception:
            self._failed("planning a step")
            return
        share = (self._now() - started) * 1e3 / len(due)
        for part in due:
            part.stream.stats.draft_ms += share
            self._spent_ms[part.stream.number] = share

    def settle(
        self,
        part: Part,
        accepted: int,
        verified: list[int],
        logits: Float32 | Decided,
        step_ms: float,
    ) -> None:
        """Tell the drafters what the target chose after ``part``; ``verified`` is in the stream."""
        number, started = part.stream.number, self._now()
        try:
            rows = _told_by(part, accepted, verified, logits)
            self._controller.settle(part.stream.view, part.draft, accepted, verified, rows, step_ms)
        except Exception:
            self._failed("learning from a step")
        self._told[number] = len(part.stream.tokens)
        learned_ms = (self._now() - started) * 1e3
        part.stream.stats.draft_ms += learned_ms
        if self._costs is not None:
            self._keep_pace(part, accepted, self._spent_ms.get(number, 0.0) + learned_ms)

    def end(self, stream: Stream) -> None:
        """The stream is over."""
        if stream.begun:
            stream.begun = False
            try:
                self._catch_up(stream)
                self._controller.end(stream.view)
            except Exception:
                self._failed("ending a stream")
        for kept in (self._paces, self._told, self._spent_ms):
            kept.pop(stream.number, None)

    def explain(self, number: int) -> list[dict[str, object]]:
        """The kept steps of a stream, oldest first."""
        records = self._records.get(number, ())
        return [RESTING if record is None else record.explain(number) for record in records]

    def _begin(self, stream: Stream) -> None:
        if not stream.begun:
            stream.begun = True
            self._told[stream.number] = len(stream.tokens)
            self._controller.begin(stream.view)

    def _due(self, number: int) -> bool:
        if self._costs is None:
            return True
        pace = self._paces.get(number)
        if pace is None:
            pace = self._paces[number] = Pace(self._usual_ms, self._streams)
            self._streams += 1
        if pace.due():
            return True
        self._keep(number, None)
        return False

    def _plan(self, parts: list[Part]) -> None:
        for part in parts:
            self._catch_up(part.stream)
            part.planned = True
        limits = [part.stream.draft_limit for part in parts]
        room = MAX_ROWS - sum(part.pending for part in parts)
        plan = self._controller.plan([part.stream.view for part in parts], room, limits)
        for index, (part, draft, limit) in enumerate(zip(parts, plan.drafts, limits, strict=True)):
            if len(draft.tokens) > limit:
                draft = replace(draft, tokens=draft.tokens[: max(limit, 0)])
            if draft.tokens:
                part.give(draft)
                part.stream.stats.foreseen += plan.record.foreseen(index, len(draft.tokens))
            self._keep(part.stream.number, plan.record)

    def _catch_up(self, stream: Stream) -> None:
        """Tell the drafters of tokens that were decoded while they rested."""
        told = self._told[stream.number]
        if told < len(stream.tokens):
            self._told[stream.number] = len(stream.tokens)
            unknown = stream.tokens[told:]
            self._controller.settle(stream.view, EMPTY, 0, unknown, None, 0.0)

    def _keep_pace(self, part: Part, accepted: int, spent_ms: float) -> None:
        assert self._costs is not None
        kv_tokens = part.stream.fed
        plain_ms = self._costs.ms(part.pending, kv_tokens)
        more_ms = self._costs.ms(part.rows, kv_tokens) - plain_ms if part.draft.tokens else 0.0
        pace = self._paces[part.stream.number]
        pace.settled(accepted * plain_ms - more_ms, spent_ms, plain_ms)
        self._usual_ms += (pace.net_ms - self._usual_ms) / 64

    def _keep(self, number: int, record: StepRecord | None) -> None:
        records = self._records.get(number)
        if records is None:
            records = self._records[number] = deque(maxlen=KEPT_STEPS)
            if len(self._records) > KEPT_STREAMS:
                self._records.popitem(last=False)
        records.append(record)

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
    rejected = len(logits) > len(verified) > accepted
    if not rejected and (part.stream.view.temperature == 0.0 or len(logits) < 2):
        return None
    after = [part.stream.tokens[-1 - len(verified)], *part.draft.tokens]
    if isinstance(logits, Decided):
        top = logits.top[:, :1].copy()
    else:
        top = logits.argmax(axis=1).astype(np.int32)[:, None]
    return VerifiedRows(np.array(after, np.int32), top, np.zeros((len(top), 0), np.float32))
