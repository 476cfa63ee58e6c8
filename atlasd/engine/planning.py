"""The engine's side of drafting: asks the controller, tells it what was accepted."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from atlasd.draft.drafter import FirstChoices, StreamView, VerifiedRows
from atlasd.engine.batch import Part
from atlasd.engine.deciding import Decided
from atlasd.engine.judged import Drafted, Quiet
from atlasd.engine.outcomes import Outcome, Step
from atlasd.engine.planning_ahead import MAX_ROWS, PlanningAhead, others_of
from atlasd.models.decoder import Float32


class Planning(PlanningAhead):
    """Drafting for the step loop."""

    _step = Step(1, 1, 0)
    """The last one that was planned."""
    _drafts = _drafting = 0
    """Tokens drafted in it, and the streams that had some."""

    # These two run in every step, with caches that the step before has emptied: few calls, so.

    def plan(self, parts: list[Part]) -> None:
        """Give drafts to the parts that can take one."""
        due, drafted = self._due(parts)
        if not due:
            return
        pending = sum([part.pending for part in parts])
        started = self._now()
        if self._costs is not None:
            self._controller.take_beside(self.beside.engine_ms)
        try:
            # Those that take no draft take their rows; short prompts that join may fill a step.
            room = max(0, MAX_ROWS - pending)
            views: list[StreamView] = []
            limits: list[int] = []
            for part, kept in zip(due, drafted, strict=True):
                stream = part.stream
                view = stream.view
                started = self._ready(stream, kept, started)
                part.planned = True
                views.append(view)
                limits.append(stream.draft_limit)
            fed = sum([part.stream.fed for part in parts])
            others = others_of(len(parts), fed, [part.stream for part in due])
            plan = self._controller.plan(views, room, limits, others)
            record = plan.record
            for index, draft in enumerate(plan.drafts):
                if draft.tokens:
                    part, limit = due[index], limits[index]
                    if len(draft.tokens) > limit:
                        draft = replace(draft, tokens=draft.tokens[: max(limit, 0)])
                    part.give(draft)
                    part.foreseen = partial(record.foreseen, index)
                drafted[index].records.append(record)
            self._step = Step(len(parts), pending, fed)
            self._drafts = sum([part.rows for part in parts]) - pending
            self._drafting = len([draft for draft in plan.drafts if draft.tokens])
            self._failures = 0
        except Exception:
            self._failed("planning a step")
            return
        self._spent([part.stream for part in due], started)

    def _due(self, parts: list[Part]) -> tuple[list[Part], list[Drafted]]:
        """The parts that are planned in this step; the others' streams rest."""
        due: list[Part] = []
        drafted: list[Drafted] = []
        numbers = [part.stream.number for part in parts]
        quiet = self._quiet
        if quiet.steps and numbers == quiet.streams:
            quiet.steps -= 1
            quiet.taken += 1
            return due, drafted
        self._wake()
        resting: list[Drafted] = []
        rests: list[int] = []
        for part in parts:
            stream = part.stream
            if not (part.logits and stream.drafting):
                continue
            kept = self._drafted.get(stream.number) or self._first(stream, len(parts))
            rest = 0
            if self._costs is not None:
                rest = kept.pace.resting(stream.begun, stream.draft_limit)
            if rest:
                resting.append(kept)
                rests.append(rest)
            else:
                due.append(part)
                drafted.append(kept)
        if due or not rests:
            for kept in resting:
                kept.rested(1)
        else:
            ready = all(part.logits for part in parts)
            self._quiet = Quiet(numbers, min(rests) - 1 if ready else 0, 1)
        return due, drafted

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
        drafted, by_all = len(part.draft.tokens), (self._drafts, self._drafting)
        outcome = Outcome(drafted, accepted, kept.spent_ms, *by_all)
        self._judge(kept, self._step, self.beside.engine_ms, [outcome])
        kept.spent_ms = 0.0
        self._spent([stream], started)


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
