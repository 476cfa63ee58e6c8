"""Steps of a stream that decodes alone, taken several at a time (``multistep``)."""

from __future__ import annotations

from ctypes import c_int32

from atlasd.draft.taken import TakenSteps
from atlasd.engine.clock import StepClock
from atlasd.engine.framing import pack_tokens
from atlasd.engine.multistep import MOST_STEPS, MultiStep
from atlasd.engine.planning import Ahead, Planning
from atlasd.engine.protocol import Tokens
from atlasd.engine.requests import Emit, Requests
from atlasd.engine.sampling import ChooseRow, damaged
from atlasd.engine.streams import Stream
from atlasd.errors import AtlasdError
from atlasd.models.decoder import Decoder


class Together(Requests):
    """Streams, and the steps of one that is alone."""

    def __init__(
        self,
        decoder: Decoder,
        emit: Emit,
        planning: Planning | None,
        choose: ChooseRow,
        clock: StepClock,
        interrupt: c_int32 | None,
    ) -> None:
        super().__init__(decoder, emit, planning, choose)
        self._clock = clock
        self._interrupt = interrupt
        self._multistep = MultiStep.on(decoder, self._choose, interrupt)
        self._unbooked: list[tuple[int, int, float, float]] = []
        """Rows, KV tokens, milliseconds and seconds by the wall of steps not counted yet."""
        self._forward_ms = 0.0

    def replace(self, decoder: Decoder) -> None:
        super().replace(decoder)
        self._multistep = MultiStep.on(decoder, self._choose, self._interrupt)

    def _together(self, stream: Stream) -> bool:
        """Take steps of this stream, the only one; False where the next is to be taken by itself:
        it needs more than native steps know."""
        steps, planning = self._multistep, self.planning
        if steps is None or not steps.suits(stream):
            return False
        began, planned = self._clock.own(), False
        ahead = Ahead(MOST_STEPS, None)
        if planning is not None and planning.on and stream.drafting:
            before_ms, planned = planning.taken_ms, True
            found = planning.ahead(stream, MOST_STEPS)
            if found is None:
                return False
            ahead = found
        try:
            taken = steps.take(stream, ahead.steps, ahead.prepared)
            if steps.damaged:
                raise damaged()
        except AtlasdError as error:
            self._fail(stream, error)
            return True
        self._took(stream, taken, steps)
        if planning is not None and planned:
            planning.took(stream, taken, steps.asks)
            planned_ms = planning.taken_ms - before_ms
            self.counters.add("draft_seconds", planned_ms / 1e3)
            if taken.each:
                others_ms = (self._clock.own() - began) * 1e3 - planned_ms
                others_ms -= sum(one.forward_ms for one in taken.each)
                planning.beside.stepped(others_ms / len(taken.each))
        if steps.reason:
            self._end(stream, steps.reason)
        return not steps.asks

    def _took(self, stream: Stream, taken: TakenSteps, steps: MultiStep) -> None:
        """The stream went on by these steps."""
        verified, stats, fed = taken.tokens, stream.stats, stream.fed
        for one in taken.each:
            self._unbooked.append((one.rows, fed + one.rows, one.forward_ms, one.forward_ms / 1e3))
            fed += 1 + one.accepted
            stats.rows += one.rows
            self._forward_ms += one.forward_ms
        states = steps.states(len(verified))
        if states is not None and verified:
            stream.keep(states)
        tokens = verified[:-1] if steps.reason == "stop" else verified
        stream.fed = steps.fed
        stream.view.tokens.extend(verified)
        stream.sampler.accept(verified)
        if stream.predicted is not None:
            stream.predicted.feed(tokens)
        stats.output_tokens += len(tokens)
        stats.steps += len(taken.each)
        stream.count_all(taken)
        if tokens:
            self._emit(Tokens(stream.number, pack_tokens(tokens), []))
