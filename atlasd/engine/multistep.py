"""Steps of a few streams, several in one native call.

A step of a small model takes half a millisecond, and Python's part of it, which finds the caches
emptied by the step before, a quarter of that. Where all streams decode and their tokens depend on
nothing but a row's logits and its noise, steps follow each other in native code until an output
ends, a message arrives, or a few milliseconds are over. What they choose is what ``steps.Engine``
chooses one by one, and so is what is drafted and learned.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from struct import Struct
from typing import Any

from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.cpu import multistep as native

from atlasd.draft.planner import SOURCES
from atlasd.draft.taken import TakenShare, TakenStep, TakenSteps, TakenStream
from atlasd.engine.native import ChooseNatively
from atlasd.engine.planning_ahead import Ahead
from atlasd.engine.sampling import ChooseRow
from atlasd.engine.streams import Stream
from atlasd.errors import EngineError
from atlasd.models.decoder import Decoder

MOST_STEPS, MOST_STREAMS = native.MOST_STEPS, native.MOST_STREAMS

# What is asked and what was done, of all and of one stream, and of one step: see multistep.h.
_ASKED = Struct("@7Qd5i")
_DONE = Struct("@3i")
_STEP = Struct("@2i2d")
_STREAM_ASKED = Struct("@3Qf4xQII10i")
_STREAM_DONE = Struct("@12i")
_SHARE = Struct("@4id")
_NO_STATES = 0, 0
_NOTHING_ASKED = 0, 0, 0, 0
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
        places = (native.StreamSteps * MOST_STREAMS)()
        self._places_at = ctypes.addressof(places)
        self._places = [_Place(place) for place in places]
        self._end = native.NONE
        self.others_ms = 0.0
        """What the last call took beside planning and rows."""

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

    def take(self, streams: Sequence[Stream], ahead: Ahead, budget_ms: float) -> TakenSteps:
        """Steps of at most ``MOST_STREAMS`` streams as they were planned ``ahead``, of which none
        begins after ``budget_ms``. Raises EngineError; the streams are then as they were."""
        prepared, drafted = ahead.prepared, ahead.drafted
        planner, prices, clock, room = 0, 0, 0, 0
        if prepared is not None:
            (planner, prices, clock), room = prepared.addresses, prepared.room
        count, decoder = len(streams), self._decoder
        logits = decoder.logits_of(count + room)
        come_from = decoder.states_address
        kept = False
        for at, stream in enumerate(streams):
            asked = _NOTHING_ASKED
            if prepared is not None and at in drafted:
                number = drafted.index(at)
                asked = *prepared.questions[number], *ahead.rests[number]
            states, chose_room = _NO_STATES, 0
            if come_from and stream.begun:
                known = stream.states(self._shape[1])
                states, chose_room, kept = known.addresses, known.room, True
            self._places[at].ask(stream, asked, states, chose_room)
        _ASKED.pack_into(
            *(self._raw, 0, decoder.handle.value, self._places_at, planner, prices, logits),
            *(come_from if kept else 0, self._interrupt_at, budget_ms),
            *(count, clock, *self._shape, ahead.steps),
        )
        problem = self._take(self._address)
        if problem is not None:
            raise EngineError(f"Decoding failed: {problem.decode()}.", "See the log.")
        return self._taken(streams, ahead)

    @property
    def in_full(self) -> bool:
        """Whether the last call took as long as it might."""
        return self._end == native.TIME

    def _taken(self, streams: Sequence[Stream], ahead: Ahead) -> TakenSteps:
        steps, self._end, wanting = _DONE.unpack_from(self._raw, native.Steps.taken.offset)
        plain_ms, self.others_ms = self._spent
        drafted = ahead.drafted
        each = []
        if drafted and steps:
            each = [
                TakenStep._make(one) for one in _STEP.iter_unpack(self._each[: steps * _STEP.size])
            ]
        found = [
            place.taken(stream, steps, at in drafted)
            for at, (stream, place) in enumerate(zip(streams, self._places, strict=False))
        ]
        taken = TakenSteps(steps, each, plain_ms, found, wanting=wanting)
        if each:
            size = sum([one.record_bytes for one in each])
            taken.records = ctypes.string_at(self._steps.records, size)
        return taken


class _Place:
    """One stream's part of a call."""

    def __init__(self, place: native.StreamSteps) -> None:
        self._place = place
        self._raw = raw = memoryview(place).cast("B")
        kind = native.StreamSteps
        self._done = raw[kind.end.offset :]
        self._each = raw[kind.each.offset : kind.tokens.offset]
        self._tokens = raw[kind.tokens.offset : kind.best.offset].cast("i")
        self._wait = raw[kind.wait.offset :][:4].cast("i")
        self._stops: frozenset[int] = frozenset()

    def ask(
        self,
        stream: Stream,
        asked: tuple[int, int, int, int],
        states: tuple[int, int],
        chose_room: int,
    ) -> None:
        """Steps of this stream. ``asked``: where its plans' question lies, the longest draft, and
        for how many steps drafting rests first and behind one that brought nothing; ``states``:
        where states that chose its tokens go, and their indices."""
        question, room, wait, pause = asked
        drawn, stops = stream.sampler.drawn, stream.stops
        assert drawn is not None
        if stops != self._stops:
            self._stops = stops
            for at, token in enumerate(stops):
                self._place.stops[at] = token
        tokens, left = stream.view.tokens, stream.max_tokens - stream.stats.output_tokens
        _STREAM_ASKED.pack_into(
            *(self._raw, 0, question, *states, *drawn, stream.sampler.outputs),
            *(stream.slot, stream.fed, tokens[-1], len(tokens), chose_room),
            *(left, room, wait, pause, len(stops)),
        )

    def taken(self, stream: Stream, steps: int, drafted: bool) -> TakenStream:
        """What became of the stream in so many steps."""
        done = _STREAM_DONE.unpack_from(self._done)
        end, tokens, told, unwritten, best, credits = done[:6]
        raw = self._each[: steps * _SHARE.size] if drafted else b""
        each = [TakenShare._make(one) for one in _SHARE.iter_unpack(raw)]
        damaged = end == native.DAMAGED
        fed = stream.fed + steps - damaged + sum([one.accepted for one in each])
        verified = self._tokens[:tokens].tolist()
        found = TakenStream(verified, fed, _REASONS.get(end, ""), damaged, each)
        if drafted:
            place = self._place
            found.drafted, found.decided, found.accepted = map(
                _by_source, (done[6:8], done[8:10], done[10:12])
            )
            found.told, found.unwritten, found.wait = told, unwritten, self._wait[0]
            found.credits = list(zip(place.segment[:credits], place.credit[:credits], strict=True))
            found.best = place.best[:best] or None
        return found


def _by_source(counts: tuple[int, ...]) -> dict[str, int]:
    return {source: count for source, count in zip(SOURCES, counts, strict=True) if count}
