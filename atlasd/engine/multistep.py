"""Steps of a stream that decodes alone, several in one native call.

A step of a small model takes half a millisecond, and Python's part of it, which finds the caches
emptied by the step before, a quarter of that. Where one stream decodes whose tokens depend on
nothing but a row's logits and its noise, steps follow each other in native code until the output
ends, a message arrives, or a few milliseconds are over. What they choose is what ``steps.Engine``
chooses one by one, and so is what is drafted and learned.
"""

from __future__ import annotations

import ctypes
from struct import Struct
from typing import Any

from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.cpu import multistep as native

from atlasd.draft.planner import SOURCES
from atlasd.draft.taken import TakenStep, TakenSteps
from atlasd.engine.native import ChooseNatively
from atlasd.engine.planning_ahead import Ahead
from atlasd.engine.sampling import ChooseRow
from atlasd.engine.streams import Stream
from atlasd.errors import EngineError
from atlasd.models.decoder import Decoder

MOST_STEPS = native.MOST_STEPS

# From the first pointer on, from `taken` on, and of one step: see multistep.h.
_ASKED = Struct("@9Qdf4xQII13i")
_DONE = Struct("@12i")
_EACH = Struct("@5i3d")
_NO_STATES = 0, 0, 0
_REASONS = {native.STOP: "stop", native.LENGTH: "length"}


class MultiStep:
    """Native steps on one decoder. ``interrupt``: not zero once something waits for the engine."""

    def __init__(self, decoder: CpuDecoder, take: Any, interrupt: ctypes.c_int32 | None) -> None:
        self._decoder, self._take = decoder, take
        self._interrupt = interrupt
        self._interrupt_at = 0 if interrupt is None else ctypes.addressof(interrupt)
        self._shape = decoder.vocab_size, decoder.spec.hidden_size
        self._steps = steps = native.Steps()
        self._address = ctypes.addressof(steps)
        # Views of plain numbers: a structure's fields take several times as long.
        self._raw = raw = memoryview(steps).cast("B")
        self._each = raw[native.Steps.each.offset :]
        self._spent = raw[native.Steps.plain_ms.offset :][:16].cast("d")
        self._tokens = raw[native.Steps.tokens.offset : native.Steps.best.offset].cast("i")
        self._stops: frozenset[int] = frozenset()
        self._end = native.NONE
        self.others_ms = 0.0
        """What the last call took beside planning and rows."""
        self.fed = 0
        """After a call: positions of the slot that hold the stream's tokens."""

    @staticmethod
    def on(
        decoder: Decoder, choose: ChooseRow, interrupt: ctypes.c_int32 | None
    ) -> MultiStep | None:
        """Native steps, where decoder and choice are native."""
        take = native.take_steps()
        if take is None or not isinstance(decoder, CpuDecoder):
            return None
        return MultiStep(decoder, take, interrupt) if isinstance(choose, ChooseNatively) else None

    @staticmethod
    def suits(stream: Stream) -> bool:
        """Whether nothing but logits and noise decides this stream's tokens, one at a time."""
        return (
            stream.pending == 1
            and stream.logprobs < 0
            and stream.constraint is None
            and len(stream.stops) <= native.MOST_STOPS
            and stream.sampler.drawn is not None
        )

    def take(self, stream: Stream, ahead: Ahead, budget_ms: float) -> TakenSteps:
        """Steps as they were planned ``ahead``, of which none begins after ``budget_ms``. Raises
        EngineError; the stream is then as it was."""
        drawn = stream.sampler.drawn
        assert drawn is not None
        planner, question, prices, clock, room = 0, 0, 0, 0, 0
        prepared, planned = ahead.prepared, 0
        if prepared is not None:
            planned = ahead.planned
            (planner, question, prices, clock), room = prepared.addresses, prepared.room
        if stream.stops != self._stops:
            self._put_stops(stream.stops)
        decoder, left = self._decoder, stream.max_tokens - stream.stats.output_tokens
        logits, tokens = decoder.logits_of(1 + room), stream.view.tokens
        states, chose_room = self._places(stream)
        _ASKED.pack_into(
            *(self._raw, 0, decoder.handle.value, planner, question, prices),
            *(logits, *states, self._interrupt_at, budget_ms),
            *(*drawn, stream.sampler.outputs),
            *(clock, *self._shape, stream.slot, stream.fed, tokens[-1]),
            *(len(tokens), chose_room, left, room, ahead.steps, planned, len(stream.stops)),
        )
        problem = self._take(self._address)
        if problem is not None:
            raise EngineError(f"Decoding failed: {problem.decode()}.", "See the log.")
        return self._taken(stream, planned)

    @property
    def reason(self) -> str:
        """Why the output ended in the last call; "": it goes on."""
        return _REASONS.get(self._end, "")

    @property
    def asks(self) -> bool:
        """Whether the last call ended because a drafter is wanted that Python asks."""
        return self._end == native.ASK

    @property
    def in_full(self) -> bool:
        """Whether the last call took as long as it might."""
        return self._end == native.TIME

    @property
    def damaged(self) -> bool:
        """Whether the model produced what is no number."""
        return self._end == native.DAMAGED

    def _put_stops(self, stops: frozenset[int]) -> None:
        self._stops = stops
        for at, token in enumerate(stops):
            self._steps.stops[at] = token

    def _places(self, stream: Stream) -> tuple[tuple[int, int, int], int]:
        """Where states come from and go to, if a drafter that knows the stream may want them; and
        how many have room there."""
        come_from = self._decoder.states_address if stream.begun else 0
        if not come_from:
            return _NO_STATES, 0
        states = stream.states(self._shape[1])
        return (come_from, *states.addresses), states.room

    def _taken(self, stream: Stream, planned: int) -> TakenSteps:
        done = _DONE.unpack_from(self._raw, native.Steps.taken.offset)
        count, self._end, tokens, unwritten, best, credits = done[:6]
        planned = min(planned, count)
        raw = self._each[: planned * _EACH.size]
        each = [TakenStep._make(one) for one in _EACH.iter_unpack(raw)] if planned else []
        plain_ms, self.others_ms = self._spent
        plain = count - planned
        self.fed = stream.fed + plain + sum([1 + one.accepted for one in each])
        taken = TakenSteps(each, plain, plain_ms, self._tokens[:tokens].tolist())
        if planned:
            steps = self._steps
            taken.drafted, taken.decided, taken.accepted = map(
                _by_source, (done[6:8], done[8:10], done[10:12])
            )
            taken.records = ctypes.string_at(steps.records, sum(one.record_bytes for one in each))
            taken.unwritten = unwritten
            taken.credits = list(zip(steps.segment[:credits], steps.credit[:credits], strict=True))
            taken.best = steps.best[:best] or None
        return taken


def _by_source(counts: tuple[int, ...]) -> dict[str, int]:
    return {source: count for source, count in zip(SOURCES, counts, strict=True) if count}
