"""Drafting for steps that streams take several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from atlasd.draft.planner import Prepared
from atlasd.draft.taken import TakenSteps, TakenStream
from atlasd.engine.judged import Judged, Outcome, Step, others_of
from atlasd.engine.streams import Stream

MAX_ROWS = 64
"""Rows of one decoding step, drafts included."""


class Ahead(NamedTuple):
    """How the next steps of some streams may be taken together."""

    steps: int
    """So many at most."""
    prepared: Prepared | None = None
    """What they plan with; None: they are plain."""
    planned: int = 0
    """So many of them, the first; plain ones follow if these bring nothing."""
    drafted: Sequence[int] = ()
    """Places of the streams that are drafted for in these; drafting rests in the others."""


class PlanningAhead(Judged):
    """How several steps are planned, and what is learned from them."""

    def ahead(self, streams: Sequence[Stream], most: int) -> Ahead | None:
        """How the next ``most`` steps of streams that decode together may be taken; None: not
        together."""
        self._wake()
        longest, due = most, list[int]()
        for at, stream in enumerate(streams):
            if not stream.drafting:
                continue
            kept = self._drafted.get(stream.number) or self._first(stream, len(streams))
            if self._costs is not None:
                rests = kept.pace.resting(stream.begun, stream.draft_limit)
                if rests:
                    most = min(most, rests)
                    continue
            due.append(at)
        if not due or (most < longest and self._can_wait(streams, due, most)):
            return Ahead(most)
        drafted = [streams[at] for at in due]
        started = self._now()
        try:
            for stream in drafted:
                started = self._ready(stream, self._drafted[stream.number], started)
            if self._costs is not None:
                self._controller.take_beside(self.native[len(streams)].engine_ms)
            prepared = self._controller.prepare(
                [stream.view for stream in drafted],
                MAX_ROWS - len(streams),
                [stream.draft_limit for stream in drafted],
                others_of(len(streams), sum([stream.fed for stream in streams]), drafted),
            )
        except Exception:
            self._failed("planning steps")
            return None
        self._spent(drafted, started)
        if prepared is None:
            return None
        if self._costs is None:
            return Ahead(most, prepared, most, due)
        # Where drafting does not pay for itself, it rests behind an attempt.
        pauses = [self._drafted[streams[at].number].pace.pause for at in due]
        if any(pauses):
            return Ahead(min(1 + min(pauses), most), prepared, 1, due)
        return Ahead(most, prepared, most, due)

    def _can_wait(self, streams: Sequence[Stream], due: Sequence[int], steps: int) -> bool:
        """Whether attempts may wait for those of other streams, so that they are made in one step:
        where they have lost, and for no longer than they rest in any case."""
        if self._costs is None:
            return False
        return all(self._drafted[streams[at].number].pace.pause >= steps for at in due)

    def took(self, streams: Sequence[Stream], ahead: Ahead, taken: TakenSteps) -> None:
        """Steps were taken as they were planned ``ahead``, and their tokens are in the streams."""
        if taken.each or taken.wanting >= 0:
            self._took_planned(streams, ahead, taken)
        for at, stream in enumerate(streams):
            if stream.drafting and (kept := self._drafted.get(stream.number)) is not None:
                kept.rested(taken.plain if at in ahead.drafted else taken.steps)

    def _took_planned(self, streams: Sequence[Stream], ahead: Ahead, taken: TakenSteps) -> None:
        due = [(streams[at], taken.streams[at]) for at in ahead.drafted]
        if taken.each:
            self._judge_all(streams, due, taken)
        started = self._now()
        try:
            for stream, mine in due:
                told = mine.told()
                self._drafted[stream.number].told += len(told)
                self._controller.took(stream.view, told, mine, taken)
            records = self._controller.all_took([stream.view for stream, _ in due], taken)
            for stream, _ in due:
                self._drafted[stream.number].records.extend(records)
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
        count, steps = len(streams), len(taken.each)
        planning_ms = sum([one.planning_ms for one in taken.each])
        self.spent_ms += planning_ms
        kv_tokens = sum([stream.fed for stream in streams])
        beside_ms = self.native[count].engine_ms
        each = zip(*[mine.each for _, mine in due], strict=True)
        had_some = [sum([one.drafted > 0 for one in step]) for step in each]
        for stream, mine in due:
            kept = self._drafted[stream.number]
            before_ms = kept.spent_ms / steps
            stream.stats.foreseen += sum([one.foreseen for one in mine.each])
            stream.stats.draft_ms += planning_ms / len(due)
            kept.spent_ms = 0.0
            self._judge(
                kept,
                Step(count, count, kv_tokens),
                beside_ms,
                [
                    Outcome(
                        one.drafted,
                        one.accepted,
                        before_ms + step.planning_ms / len(due),
                        step.rows - count,
                        drafting,
                    )
                    for one, step, drafting in zip(mine.each, taken.each, had_some, strict=True)
                ],
            )

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
        if not taken.each and share == 1.0:
            usual.stepped(call_ms)
            return
        more_ms = max(0.0, call_ms - share * (usual.engine_ms or call_ms))
        places = ahead.drafted or range(len(streams))
        for at in places:
            if (kept := self._drafted.get(streams[at].number)) is not None:
                kept.spent_ms += more_ms / len(places)
