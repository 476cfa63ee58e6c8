"""Drafting for steps that streams take several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atlasd.draft.cut import NO_OTHERS, Others
from atlasd.draft.planner_ahead import Prepared
from atlasd.draft.taken import TakenSteps, TakenStream
from atlasd.engine.judged import Judged
from atlasd.engine.outcomes import Outcome, Step
from atlasd.engine.streams import Stream

MAX_ROWS = 64
"""Rows of one decoding step, drafts included."""


class Ahead(NamedTuple):
    """How the next steps of some streams may be taken together."""

    steps: int
    """So many at most."""
    prepared: Prepared | None = None
    """What they plan with; None: they are plain."""
    drafted: Sequence[int] = ()
    """Places of the streams that are drafted for in these; drafting rests in the others."""
    rests: Sequence[tuple[int, int]] = ()
    """For each of these: steps for which drafting rests first, and behind one that it brought
    nothing in."""


class PlanningAhead(Judged):
    """How several steps are planned, and what is learned from them."""

    def ahead(self, streams: Sequence[Stream], most: int, budget_ms: float) -> Ahead | None:
        """How the next ``most`` steps of streams that decode together may be taken, of which none
        begins after ``budget_ms``; None: not together."""
        self._wake()
        count, fed = len(streams), sum([stream.fed for stream in streams])
        within = most
        if self._costs is not None:
            within = min(most, 1 + int(budget_ms / self._ms(count, fed)))
        due: list[int] = []
        rests: list[tuple[int, int]] = []
        for at, stream in enumerate(streams):
            if not stream.drafting:
                continue
            pace = (self._drafted.get(stream.number) or self._first(stream, count)).pace
            rest = pause = 0
            if self._costs is not None:
                rest, pause = pace.resting(stream.begun, stream.draft_limit), pace.pause
            if rest and (rest >= within or not stream.begun):
                most = min(most, rest)
                continue
            due.append(at)
            rests.append((rest, pause))
        if not due:
            return Ahead(most)
        drafted = [streams[at] for at in due]
        started = self._now()
        try:
            for stream in drafted:
                started = self._ready(stream, self._drafted[stream.number], started)
            if self._costs is not None:
                self._controller.take_beside(self.native[count].engine_ms)
            prepared = self._controller.prepare(
                [stream.view for stream in drafted],
                MAX_ROWS - count,
                [stream.draft_limit for stream in drafted],
                others_of(count, fed, drafted),
            )
        except Exception:
            self._failed("planning steps")
            return None
        self._spent(drafted, started)
        return None if prepared is None else Ahead(most, prepared, due, rests)

    def took(self, streams: Sequence[Stream], ahead: Ahead, taken: TakenSteps) -> None:
        """Steps were taken as they were planned ``ahead``, and their tokens are in the streams."""
        for at, stream in enumerate(streams):
            kept = self._drafted.get(stream.number) if stream.drafting else None
            if kept is not None and at not in ahead.drafted:
                kept.rested(taken.steps)
        if not ahead.drafted:
            return
        due = [(streams[at], taken.streams[at]) for at in ahead.drafted]
        if taken.each:
            self._judge_all(streams, due, taken)
        started, waiting = self._now(), []
        try:
            for (stream, mine), (_, pause) in zip(due, ahead.rests, strict=True):
                kept = self._drafted[stream.number]
                kept.told += mine.told
                self._controller.took(stream.view, mine, taken)
                if pause or not any(one.planned for one in mine.each):
                    kept.pace.waits(mine.wait)
                if not mine.wait:
                    waiting.append(stream.view)
            records = self._controller.all_took(waiting, taken)
            for stream, mine in due:
                self._drafted[stream.number].records.extend(
                    record if one.planned else None
                    for record, one in zip(records, mine.each, strict=True)
                )
            self._failures = 0
        except Exception:
            self._failed("learning from steps")
        self._spent([stream for stream, _ in due], started)

    def _judge_all(
        self,
        streams: Sequence[Stream],
        due: Sequence[tuple[Stream, TakenStream]],
        taken: TakenSteps,
    ) -> None:
        """What the planned steps brought goes to the streams' paces."""
        count = len(streams)
        step = Step(count, count, sum([stream.fed for stream in streams]))
        self.spent_ms += sum([one.planning_ms for one in taken.each])
        shares = list(zip(*[mine.each for _, mine in due], strict=True))
        planned = [sum([one.planned for one in each]) for each in shares]
        had_some = [sum([one.drafted > 0 for one in each]) for each in shares]
        for stream, mine in due:
            kept = self._drafted[stream.number]
            own = [at for at, one in enumerate(mine.each) if one.planned]
            if not own:
                continue
            before_ms = kept.spent_ms / len(own)
            kept.spent_ms = 0.0
            outcomes = []
            for at in own:
                one, whole = mine.each[at], taken.each[at]
                planning_ms = whole.planning_ms / planned[at]
                stream.stats.draft_ms += planning_ms
                stream.stats.foreseen += one.foreseen
                drafted = whole.rows - count
                outcomes.append(
                    Outcome(
                        one.drafted,
                        one.accepted,
                        before_ms + planning_ms,
                        drafted,
                        had_some[at],
                    )
                )
            self._judge(kept, step, self.native[count].engine_ms, outcomes)

    def took_beside(
        self,
        streams: Sequence[Stream],
        ahead: Ahead,
        taken: TakenSteps,
        others_ms: float,
        call_ms: float,
        share: float,
    ) -> None:
        """Steps that were taken together took ``others_ms`` beside rows and drafting, and calling
        them ``call_ms``. Where they took only a ``share`` of the time they had, or left more to do,
        drafting answers for it."""
        usual = self.calling[len(streams)]
        self.native[len(streams)].stepped(others_ms / taken.steps)
        if not ahead.drafted and share == 1.0:
            usual.stepped(call_ms)
            return
        more_ms = max(0.0, call_ms - share * (usual.engine_ms or call_ms))
        places = ahead.drafted or range(len(streams))
        for at in places:
            if (kept := self._drafted.get(streams[at].number)) is not None:
                kept.spent_ms += more_ms / len(places)


def others_of(streams: int, fed: int, drafted: Sequence[Stream]) -> Others:
    """Those of so many streams with so many tokens which are not ``drafted`` for."""
    if streams == len(drafted):
        return NO_OTHERS
    return Others(streams - len(drafted), fed - sum([stream.fed for stream in drafted]))
