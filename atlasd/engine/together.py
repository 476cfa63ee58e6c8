"""Steps of a stream that decodes alone, taken several at a time (``multistep``)."""

from __future__ import annotations

from ctypes import c_int32
from time import perf_counter

from atlasd.draft.taken import TakenSteps
from atlasd.engine.booking import Booking
from atlasd.engine.clock import StepClock
from atlasd.engine.costs import StepCosts
from atlasd.engine.framing import pack_tokens
from atlasd.engine.multistep import MOST_STEPS, MultiStep
from atlasd.engine.planning import Planning
from atlasd.engine.planning_ahead import Ahead
from atlasd.engine.protocol import Tokens
from atlasd.engine.requests import Emit, Requests
from atlasd.engine.sampling import ChooseRow, damaged
from atlasd.engine.streams import Stream
from atlasd.errors import EngineError
from atlasd.models.decoder import Decoder

SHORTEST_MS, LONGEST_MS = 2.0, 8.0
"""No step begins later in a call. Whoever reads the output gets it in pieces of this length: a
piece takes no longer than what was there before it, so that a reader who stops early has not waited
much longer than it had to."""

PLAIN = Ahead(MOST_STEPS, None)


class Together(Requests):
    """Streams, and the steps of one that is alone."""

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

    def _together(self, stream: Stream) -> bool:
        """Take steps of this stream, the only one; False where the next is to be taken by itself:
        it needs more than native steps know."""
        steps, planning = self._multistep, self.planning
        if steps is None or not steps.suits(stream):
            return False
        drafting = planning if planning is not None and planning.on and stream.drafting else None
        began, forward_ms = self._clock.own(), self._forward_ms
        drafting_ms = drafting.taken_ms if drafting is not None else 0.0
        ahead = drafting.ahead(stream, MOST_STEPS) if drafting is not None else PLAIN
        if ahead is None:
            return False
        waits_ms = (perf_counter() - stream.waits_since) * 1e3
        budget_ms = min(max(waits_ms, SHORTEST_MS), LONGEST_MS)
        try:
            taken = steps.take(stream, ahead, budget_ms)
        except EngineError as error:
            self._fail(stream, error)
            return True
        self._took(stream, taken, steps)
        if drafting is not None:
            drafting.took(stream, taken, steps.asks)
            drafting_ms = drafting.taken_ms - drafting_ms
            self.counters.add("draft_seconds", drafting_ms / 1e3)
        if planning is not None and taken.steps:
            native_ms = self._forward_ms - forward_ms + steps.others_ms
            call_ms = (self._clock.own() - began) * 1e3 - drafting_ms - native_ms
            # An output's end cuts plain steps short as well.
            whole = steps.in_full or steps.reason
            share = 1.0 if whole else min(1.0, native_ms / budget_ms)
            planning.took_beside(stream, taken, steps.others_ms, call_ms, share)
        self._booking.now_and_then()
        if steps.reason:
            self._end(stream, steps.reason)
        elif steps.damaged:
            self._fail(stream, damaged())
        return not steps.asks

    def _took(self, stream: Stream, taken: TakenSteps, steps: MultiStep) -> None:
        """The stream went on by these steps."""
        verified, stats = taken.tokens, stream.stats
        by_rows: dict[int, list[float]] = {}
        for one in taken.each:
            by_rows.setdefault(one.rows, []).append(one.forward_ms)
        for rows, took_ms in by_rows.items():
            took_ms.sort()
            middle = took_ms[len(took_ms) // 2]
            self._count(stream, rows, len(took_ms), middle, sum(took_ms))
        if taken.plain:
            self._count(stream, 1, taken.plain, taken.plain_ms / taken.plain, taken.plain_ms)
        tokens = verified[:-1] if steps.reason == "stop" else verified
        stream.fed = steps.fed
        stream.view.tokens.extend(verified)
        stream.sampler.accept(verified)
        if stream.predicted is not None:
            stream.predicted.feed(tokens)
        stats.output_tokens += len(tokens)
        stats.steps += taken.steps
        stream.count_by_source(taken.decided, taken.accepted)
        if tokens:
            self._emit(Tokens(stream.number, pack_tokens(tokens), []))

    def _count(self, stream: Stream, rows: int, steps: int, step_ms: float, all_ms: float) -> None:
        """So many steps of as many rows, one of which took about ``step_ms``."""
        self._booking.note(rows, stream.fed, step_ms, all_ms / 1e3, steps)
        stream.stats.rows += rows * steps
        self._forward_ms += all_ms
