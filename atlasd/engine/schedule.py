"""Whose turn it is: which stream gets a slot, which prefills, which decode in the next step."""

from __future__ import annotations

from collections.abc import Callable, Collection
from time import perf_counter

from atlasd.engine.protocol import Priority
from atlasd.engine.slots import Slots
from atlasd.engine.streams import Phase, Stream
from atlasd.models.decoder import Decoder

MAX_STREAMS = 16
"""Streams that decode together."""

JOIN_ROWS = 16
"""A prompt of which only this many tokens are missing skips prefill and joins a decoding step,
where its rows cost little and the first draft rides along."""

PREFILL_MS = 60.0
"""A prefill call takes about this long, so that cancelling it and the steps of other streams do not
wait longer; where a plain step is slow, as long as a few of them."""

PLAIN_STEPS = 3

PATIENCE_S = 0.25
"""A prefill that must give way to more urgent streams gets a turn after this long all the same."""


class Schedule:
    """Hands out slots and turns by priority, then by arrival. ``preempted`` is told of a stream
    that lost its slot."""

    def __init__(self, decoder: Decoder, preempted: Callable[[], None]) -> None:
        self.slots = Slots(
            decoder.slots, decoder.slot_tokens, decoder.prefill_chunk, decoder.copy_prefix
        )
        self._mixes = decoder.prefill_chunk == 1
        self._unit = -(-16 // decoder.prefill_chunk) * decoder.prefill_chunk
        self._most_rows = decoder.prefill_rows
        self._row_ms = 0.0
        self._preempted = preempted
        self._prefill_turn = True
        self._prefilled_at = 0.0

    def next_prefill(self, streams: Collection[Stream]) -> Stream | None:
        """The stream whose prefill has the next turn, with a slot, if one has."""
        waiting = [s for s in streams if s.phase is not Phase.DECODE]
        if not waiting:
            return None
        waiting.sort(key=lambda stream: stream.order)
        decoding = [s.priority for s in streams if s.phase is Phase.DECODE]
        if decoding:
            gives_way = waiting[0].priority > min(decoding)
            if gives_way and perf_counter() - self._prefilled_at < PATIENCE_S:
                return None
            if not self._prefill_turn:
                return None
        for stream in waiting:
            if stream.phase is Phase.QUEUED and not self._admit(stream, streams):
                continue
            if stream.phase is Phase.PREFILL:
                return stream
        return None

    def prefill_rows(self, plain_ms: float) -> int:
        """Rows of the next prefill call, whole chunks; ``plain_ms`` is what a plain step takes."""
        if not self._row_ms:
            return min(self._most_rows, 4 * self._unit)
        fitting = max(PREFILL_MS, PLAIN_STEPS * plain_ms) / self._row_ms
        return min(self._most_rows, max(int(fitting) // self._unit, 1) * self._unit)

    def prefilled(self, rows: int, ms: float) -> None:
        """A prefill has had its turn; decoding streams are next."""
        self._prefill_turn, self._prefilled_at = False, perf_counter()
        if rows >= self._unit:
            row_ms = ms / rows
            self._row_ms = row_ms if not self._row_ms else 0.8 * self._row_ms + 0.2 * row_ms

    def next_decoding(self, streams: Collection[Stream]) -> list[Stream]:
        """The streams of the next decoding step, most urgent first. A prefill may follow it."""
        self._prefill_turn = True
        ready = [s for s in streams if s.phase is Phase.DECODE]
        if len(ready) > 1:
            ready.sort(key=lambda stream: stream.order)
            if any(s.priority is Priority.COMPLETION for s in streams):
                asked_for = [s for s in ready if s.priority is not Priority.AHEAD]
                # A completion that waits for a slot must not stop what delays nobody.
                ready = asked_for or ready
        return ready[:MAX_STREAMS]

    def leave(self, stream: Stream) -> None:
        """Take the slot from a stream; what is in it stays for others."""
        self.slots.release(stream.slot, stream.prefix(stream.fed), stream.fed)
        stream.slot, stream.fed = -1, 0

    def _admit(self, stream: Stream, streams: Collection[Stream]) -> bool:
        """Find a slot with as much of the prompt as possible; False if there is none."""
        if not self.slots.free and not self._preempt(stream, streams):
            return False
        tokens = stream.prefix()
        fresh = len(tokens) == stream.view.prompt_length
        # The row of the last prompt token is needed for its logits; after a preemption it is not,
        # and what was decoded is fed again as it was before: by decoding.
        stream.prefill_end = len(tokens) if self._mixes or fresh else stream.view.prompt_length
        place = self.slots.acquire(tokens, stream.prefill_end - int(self._mixes or fresh))
        assert place is not None
        stream.slot, stream.fed = place.slot, place.reused
        if fresh:
            stream.stats.cached_tokens = place.reused
        joins = self._mixes and stream.pending <= JOIN_ROWS
        if joins:
            stream.stats.prefilled_tokens += stream.pending
        stream.enter(Phase.DECODE if joins or stream.fed == stream.prefill_end else Phase.PREFILL)
        return True

    def _preempt(self, urgent: Stream, streams: Collection[Stream]) -> bool:
        """Send the least urgent stream back to the queue if ``urgent`` goes before it."""
        held = [stream for stream in streams if stream.slot >= 0]
        victim = max(held, key=lambda stream: stream.order, default=None)
        if victim is None or victim.priority <= urgent.priority:
            return False
        self.leave(victim)
        victim.enter(Phase.QUEUED)
        self._preempted()
        return True
