"""The engine's side of drafting: asks the controller, tells it what was accepted, keeps records.

A drafter that raises costs its stream the draft, never the stream.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from dataclasses import replace
from time import perf_counter

import numpy as np

from atlasd.draft.controller import Controller
from atlasd.draft.drafter import VerifiedRows
from atlasd.draft.plan import StepRecord
from atlasd.engine.batch import Part
from atlasd.engine.sampling import top_choices
from atlasd.engine.streams import Stream
from atlasd.models.decoder import Float32

log = logging.getLogger(__name__)

MAX_ROWS = 64
"""Rows of one decoding step, drafts included."""

KEPT_STREAMS, KEPT_STEPS = 32, 256
"""Records that can be asked for by ``explain``: of so many streams, so many steps each."""

PATIENCE = 3
"""After this many failures in a row drafting is switched off."""


class Planning:
    """Drafting for the step loop. ``top_choices`` is how many of the target's likeliest tokens
    per row drafters are told, 0 for none."""

    def __init__(self, controller: Controller, *, on: bool = True, top_choices: int = 0) -> None:
        self.on = on
        self._controller = controller
        self._top_choices = top_choices
        self._failures = 0
        self._records: OrderedDict[int, deque[StepRecord]] = OrderedDict()

    def plan(self, parts: list[Part]) -> None:
        """Give drafts to the parts that can take one."""
        parts = [part for part in parts if part.logits and part.stream.drafting]
        if not parts:
            return
        started = perf_counter()
        try:
            self._plan(parts)
            self._failures = 0
        except Exception:
            self._failed("planning a step")
        share = (perf_counter() - started) * 1e3 / len(parts)
        for part in parts:
            part.stream.stats.draft_ms += share

    def settle(
        self, part: Part, accepted: int, verified: list[int], logits: Float32, step_ms: float
    ) -> None:
        """Tell the drafters what the target chose after ``part``; ``verified`` is in the stream."""
        rows = None
        try:
            if self._top_choices and verified:
                after = [part.stream.tokens[-1 - len(verified)], *part.draft.tokens]
                # Rows behind a stop are no part of the stream.
                count = len(logits) if len(verified) > accepted else len(verified)
                ids, logprobs = top_choices(logits[:count], self._top_choices)
                rows = VerifiedRows(np.array(after[:count], np.int32), ids, logprobs)
            self._controller.settle(part.stream.view, part.draft, accepted, verified, rows, step_ms)
        except Exception:
            self._failed("learning from a step")

    def end(self, stream: Stream) -> None:
        """The stream is over."""
        if not stream.begun:
            return
        stream.begun = False
        try:
            self._controller.end(stream.view)
        except Exception:
            self._failed("ending a stream")

    def explain(self, number: int) -> list[dict[str, object]]:
        """The kept steps of a stream, oldest first."""
        return [record.explain(number) for record in self._records.get(number, ())]

    def _plan(self, parts: list[Part]) -> None:
        for part in parts:
            stream = part.stream
            if not stream.begun:
                stream.begun = True
                self._controller.begin(stream.view)
            part.planned = True
        limits = [part.stream.draft_limit for part in parts]
        room = MAX_ROWS - sum(part.pending for part in parts)
        plan = self._controller.plan([part.stream.view for part in parts], room, limits)
        for part, draft, limit in zip(parts, plan.drafts, limits, strict=True):
            if len(draft.tokens) > limit:
                draft = replace(draft, tokens=draft.tokens[: max(limit, 0)])
            if draft.tokens:
                part.give(draft)
            self._keep(part.stream.number, plan.record)

    def _keep(self, number: int, record: StepRecord) -> None:
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
