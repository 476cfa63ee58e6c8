"""The step loop: prefill in chunks, plan, draft, verify, accept, hand out.

One ``step`` is one forward pass: a chunk of one stream's prefill, or one step of all decoding
streams together. Nothing here knows text, sockets or threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from ctypes import c_int32
from time import perf_counter

import numpy as np

from atlasd.draft.drafter import EMPTY
from atlasd.engine.batch import Batch, Part
from atlasd.engine.beside import EVERY
from atlasd.engine.clock import StepClock
from atlasd.engine.costs import StepCosts
from atlasd.engine.deciding import Decided, decide
from atlasd.engine.framing import pack_tokens
from atlasd.engine.masking import Masks, masked
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Tokens
from atlasd.engine.requests import Emit
from atlasd.engine.sampling import ChooseRow, choose_row, logprobs_of
from atlasd.engine.schedule import JOIN_ROWS
from atlasd.engine.streams import Phase, Stream
from atlasd.engine.together import Together
from atlasd.models.decoder import Decoder, Float32, kept_states

log = logging.getLogger(__name__)


class Engine(Together):
    """A decoder, its slots and the streams in them. Not thread-safe.

    ``emit`` is given every ``Tokens`` and ``Finished`` message. ``poll`` is called between the
    drafting and the forward pass of a step, so that a cancel which arrives while a slow drafter
    works takes effect before the pass is paid for. ``interrupt`` is not zero while a message waits:
    steps that are taken together end there.
    """

    def __init__(
        self,
        decoder: Decoder,
        emit: Emit,
        *,
        planning: Planning | None = None,
        costs: StepCosts | None = None,
        choose: ChooseRow = choose_row,
        clock: StepClock | None = None,
        poll: Callable[[], None] = lambda: None,
        interrupt: c_int32 | None = None,
    ) -> None:
        costs = costs or StepCosts(decoder.bucket)
        clock = clock or StepClock()
        super().__init__(decoder, emit, planning, choose, costs, clock, interrupt)
        self._poll = poll
        self._masks = Masks()
        self._steps = 0

    def step(self) -> bool:
        """Do one forward pass, or tell that there is nothing to do by returning False."""
        if not self._streams:
            return False
        streams = self._streams.values()
        stream = self._schedule.next_prefill(streams)
        if stream is not None:
            self._prefill(stream)
            return True
        decoding = self._schedule.next_decoding(streams)
        if decoding:
            self._decode(decoding)
        if not self._streams:
            self._booking.count()
        return bool(self._streams)

    # Prefill

    def _prefill(self, stream: Stream) -> None:
        start = stream.fed
        most = self._schedule.prefill_rows(self.costs.ms(1, start))
        end = min(stream.prefill_end, start + most)
        last = end == stream.prefill_end == len(stream.tokens)
        rows = np.arange(start, end, dtype=np.int32)
        part = Part(stream, EMPTY, 0, int(last))
        started = perf_counter()
        self._masks.begin([part])
        try:
            logits = self.decoder.forward(
                np.array(stream.tokens[start:end], dtype=np.int32),
                np.full_like(rows, stream.slot),
                rows,
                rows[-1:] - np.int32(start) if last else rows[:0],
                prefill=True,
            )
            seconds = perf_counter() - started
            self._schedule.prefilled(len(rows), seconds * 1e3)
            self.counters.add("prefill_calls")
            self.counters.add("forward_seconds", seconds)
            stream.fed = end
            stream.stats.prefilled_tokens += end - start
            self.slots.wrote(stream.slot, end)
            if end == stream.prefill_end:
                stream.enter(Phase.DECODE)
            if last and (reason := self._accept(part, logits, 0.0)):
                self._end(stream, reason)
        except Exception as error:
            self._masks.finish([part])
            self._fail(stream, error)

    # Decoding

    def _decode(self, streams: list[Stream]) -> None:
        planning = self.planning
        self._steps += 1
        if self._together(streams):
            return
        if planning is None or self._steps % EVERY:
            self._step(streams)
            return
        began, others_ms = self._clock.own(), self._forward_ms + planning.taken_ms
        if self._step(streams):
            others_ms = self._forward_ms + planning.taken_ms - others_ms
            planning.beside.stepped((self._clock.own() - began) * 1e3 - others_ms)

    def _step(self, streams: list[Stream]) -> bool:
        """One step of streams that decode; False where none was left or it failed."""
        batch = self._plan(streams)
        self._poll()
        batch.parts = [part for part in batch.parts if part.stream.phase is Phase.DECODE]
        if not batch.parts:
            return False
        began = self._clock.now()
        self._masks.begin(batch.parts)
        try:
            decided = decide(self.decoder, batch, self._booking.now_and_then)
            logits = self._forward(batch) if decided is None else decided
        except Exception as error:
            self._masks.finish(batch.parts)
            if len(batch.parts) == 1 and not batch.parts[0].draft.tokens:
                self._fail(batch.parts[0].stream, error)
            else:
                log.exception("a step failed; its streams go on one by one")
                for part in batch.parts:
                    self._decode_alone(part.stream)
            return False
        step_ms = self._clock.ms_since(began)
        self._forward_ms += step_ms
        seconds = perf_counter() - began[0]
        self._booking.note(batch.rows, batch.kv_tokens, step_ms, seconds)
        if decided is None:
            self._booking.now_and_then()
        at, ended = 0, []
        for part in batch.parts:
            count = part.logits
            if part.pending > 1:
                part.stream.has_read(seconds * 1e3 * (part.pending - bool(count)) / part.rows)
            try:
                if count:
                    reason = self._accept(part, logits[at : at + count], step_ms, at)
                    if reason:
                        ended.append((part.stream, reason))
                else:
                    part.stream.fed += part.rows
            except Exception as error:
                self._fail(part.stream, error)
            at += count
        for stream, reason in ended:  # once all have learned from the step
            self._end(stream, reason)
        return True

    def _decode_alone(self, stream: Stream) -> None:
        """One plain step of one stream, after a step of several has failed."""
        batch = Batch([Part.plain(stream, JOIN_ROWS)])
        try:
            logits = self._forward(batch)
            if not batch.parts[0].logits:
                stream.fed += batch.parts[0].rows
            elif reason := self._accept(batch.parts[0], logits, 0.0):
                self._end(stream, reason)
        except Exception as error:
            self._fail(stream, error)

    def _plan(self, streams: list[Stream]) -> Batch:
        parts = [Part.plain(stream, JOIN_ROWS) for stream in streams]
        if self.planning is not None and self.planning.on:
            started = perf_counter()
            self.planning.plan(parts)
            self.counters.add("draft_seconds", perf_counter() - started)
        return Batch(parts)

    def _forward(self, batch: Batch) -> Float32:
        tokens, slots, positions, wanted = batch.arrays()
        return self.decoder.forward(tokens, slots, positions, wanted)

    def _accept(self, part: Part, logits: Float32 | Decided, step_ms: float, at: int = 0) -> str:
        """Accept what the target agrees with; why the output ends there, or "". ``at`` is the place
        of the part's first row among the rows wanted."""
        stream, draft = part.stream, part.draft
        stats = stream.stats
        if isinstance(logits, Decided):
            chosen = logits.match(draft.tokens)
        else:
            chosen = stream.sampler.match(masked(part, logits), draft.tokens)
        agreed = len(chosen) - 1
        tokens, reason, verified = stream.take(chosen)
        accepted = min(agreed, len(verified))
        scores = []
        if stream.logprobs >= 0 and not isinstance(logits, Decided):
            rows = zip(logits, tokens, strict=False)
            scores = [logprobs_of(row, token, stream.logprobs) for row, token in rows]
        stream.fed = min(stream.fed + part.pending + accepted, len(stream.tokens) + len(verified))
        # Of a stream that nobody drafts for yet, the state that a first ask may begin with.
        if stream.begun or (stream.drafting and not stats.output_tokens):
            states = kept_states(self.decoder)
            if states is not None:
                known = stream.states(states.shape[1])
                known.put(len(stream.tokens), states[at : at + len(verified)])
        stream.view.tokens.extend(verified)
        stream.sampler.accept(verified)
        stats.output_tokens += len(tokens)
        if step_ms:
            stats.steps += 1
            stats.rows += part.rows
        if draft.tokens:
            decided = min(len(draft.tokens), len(verified)) if reason else len(draft.tokens)
            stream.count(draft, decided, accepted)
            if part.foreseen is not None:
                stats.foreseen += part.foreseen(decided)
        if tokens:
            self._emit(Tokens(stream.number, pack_tokens(tokens), scores))
        if part.planned and self.planning is not None:
            self.planning.settle(part, accepted, verified, logits, step_ms)
        return reason
