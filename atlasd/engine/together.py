"""Steps that are taken several at a time (``multistep``)."""

from __future__ import annotations

from ctypes import c_int32
from time import perf_counter

from atlasd.draft.taken import TakenSteps, TakenStream
from atlasd.engine.booking import Booking
from atlasd.engine.clock import StepClock
from atlasd.engine.costs import StepCosts
from atlasd.engine.framing import pack_tokens
from atlasd.engine.multistep import MOST_STEPS, MOST_STREAMS, MultiStep
from atlasd.engine.planning import Planning
from atlasd.engine.planning_ahead import Ahead
from atlasd.engine.protocol import Tokens
from atlasd.engine.requests import Emit, Requests
from atlasd.engine.sampling import ChooseRow, damaged
from atlasd.engine.streams import Phase, Stream
from atlasd.errors import EngineError
from atlasd.models.decoder import Decoder

SHORTEST_MS, LONGEST_MS = 2.0, 8.0
"""No step begins later in a call. Whoever reads the output gets it in pieces of this length: a
piece takes no longer than what was there before it, so that a reader who stops early has not waited
much longer than it had to."""

PLAIN = Ahead(MOST_STEPS, None)


class Together(Requests):
    """Streams, and the steps that native code takes of them."""

    def __init__(
        self,
        decoder: Decoder,
        emit: Emit,
        planning: Planning | None,
        choose: ChooseRow,
        costs: StepCosts,
        clock: StepClock,
        interrupt: c_int32 | None,
    ) -> None:
        super().__init__(decoder, emit, planning, choose)
        self._clock = clock
        self._interrupt = interrupt
        self._multistep = MultiStep.on(decoder, self._choose, interrupt)
        self.costs = costs
        self._booking = Booking(costs, self.counters)
        self._forward_ms = 0.0

    def replace(self, decoder: Decoder) -> None:
        super().replace(decoder)
        self._multistep = MultiStep.on(decoder, self._choose, self._interrupt)

    def one_by_one(self) -> None:
        """Take every step by itself from now on; for comparison."""
        self._multistep = None

    def _together(self, streams: list[Stream]) -> bool:
        """Take steps of these streams together; False where the next is to be taken by itself: it
        needs more than native steps know, or somebody waits for its end."""
        steps, planning = self._multistep, self.planning
        if steps is None or not self._may_be_taken(streams):
            return False
        drafting = planning if planning is not None and planning.on else None
        began, forward_ms = self._clock.own(), self._forward_ms
        drafting_ms = drafting.taken_ms if drafting is not None else 0.0
        ahead, budget_ms = PLAIN, _budget_ms(streams)
        if drafting is not None:
            found = drafting.ahead(streams, MOST_STEPS, budget_ms)
            if found is None:
                return False
            ahead = found
        try:
            taken = steps.take(streams, ahead, budget_ms)
        except EngineError as error:
            if len(streams) > 1:
                return False
            self._fail(streams[0], error)
            return True
        self._took(streams, taken)
        if drafting is not None:
            drafting.took(streams, ahead, taken)
            drafting_ms = drafting.taken_ms - drafting_ms
            self.counters.add("draft_seconds", drafting_ms / 1e3)
        if planning is not None and taken.steps:
            native_ms = self._forward_ms - forward_ms + steps.others_ms
            call_ms = (self._clock.own() - began) * 1e3 - drafting_ms - native_ms
            # An output's end cuts plain steps short as well.
            whole = steps.in_full or any(one.reason for one in taken.streams)
            share = 1.0 if whole else min(1.0, native_ms / budget_ms)
            planning.took_beside(streams, ahead, taken, steps.others_ms, call_ms, share)
        self._booking.now_and_then()
        for stream, mine in zip(streams, taken.streams, strict=True):
            if mine.damaged:
                self._fail(stream, damaged())
            elif mine.reason:
                self._end(stream, mine.reason)
        return taken.wanting < 0

    def _may_be_taken(self, streams: list[Stream]) -> bool:
        """Whether native steps know all there is to these streams, and no other one waits to be
        read: its prefill has the turn after the next step."""
        if len(streams) > MOST_STREAMS or not all(map(MultiStep.suits, streams)):
            return False
        return all(one.phase is Phase.DECODE for one in self._streams.values())

    def _took(self, streams: list[Stream], taken: TakenSteps) -> None:
        """The streams went on by these steps."""
        count, fed = len(streams), sum([stream.fed for stream in streams])
        by_rows: dict[int, list[float]] = {}
        for one in taken.each:
            by_rows.setdefault(one.rows, []).append(one.forward_ms)
        for rows, took_ms in by_rows.items():
            took_ms.sort()
            self._count(rows, fed, len(took_ms), took_ms[len(took_ms) // 2], sum(took_ms))
        if not taken.each and (steps := taken.steps):
            self._count(count, fed, steps, taken.plain_ms / steps, taken.plain_ms)
        for stream, mine in zip(streams, taken.streams, strict=True):
            self._went_on(stream, mine, taken.steps)

    def _went_on(self, stream: Stream, mine: TakenStream, steps: int) -> None:
        verified, stats = mine.tokens, stream.stats
        tokens = verified[:-1] if mine.reason == "stop" else verified
        stream.fed = mine.fed
        stream.view.tokens.extend(verified)
        stream.sampler.accept(verified)
        if stream.predicted is not None:
            stream.predicted.feed(tokens)
        stats.output_tokens += len(tokens)
        stats.steps += steps
        stats.rows += steps + sum([one.drafted for one in mine.each])
        stream.count_by_source(mine.decided, mine.accepted)
        if tokens:
            self._emit(Tokens(stream.number, pack_tokens(tokens), []))

    def _count(self, rows: int, fed: int, steps: int, step_ms: float, all_ms: float) -> None:
        """So many steps of as many rows, one of which took about ``step_ms``."""
        self._booking.note(rows, fed, step_ms, all_ms / 1e3, steps)
        self._forward_ms += all_ms


def _budget_ms(streams: list[Stream]) -> float:
    """After so long no step begins any more."""
    youngest = max([stream.waits_since for stream in streams])
    return min(max((perf_counter() - youngest) * 1e3, SHORTEST_MS), LONGEST_MS)
