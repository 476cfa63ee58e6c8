"""The streams of an engine: what is asked of them between steps, and their ends."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from atlasd.engine.counters import Counters
from atlasd.engine.deciding import decides
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Finished, Priority, StreamStats, Submit, Tokens
from atlasd.engine.sampling import ChooseRow, choose_row
from atlasd.engine.schedule import Schedule
from atlasd.engine.streams import Phase, Stream, new_stream
from atlasd.errors import AtlasdError
from atlasd.models.decoder import Decoder

if TYPE_CHECKING:
    from atlasd.draft.constraint import Constraint

log = logging.getLogger(__name__)

Emit = Callable[[Tokens | Finished], None]


class Requests:
    """Streams by number, from their request to their end; ``steps.Engine`` decodes them.

    A stream that is here waits for a slot or has one. Whatever ends it, its ``Finished`` is
    emitted once and its slot is free for the next step.
    """

    def __init__(
        self, decoder: Decoder, emit: Emit, planning: Planning | None, choose: ChooseRow
    ) -> None:
        self.decoder = decoder
        self.planning = planning
        self.counters = Counters()
        self._schedule = Schedule(decoder, lambda: self.counters.add("preempted"))
        self.slots = self._schedule.slots
        self._emit = emit
        # A device decides as the reference does, so what is decided here must, too.
        self._choose = choose_row if decides(decoder) else choose
        self._streams: dict[int, Stream] = {}
        self._arrivals = 0

    def submit(self, submit: Submit, constraint: Constraint | None = None) -> None:
        """Take on a stream, held to ``constraint`` (its own from now on); what is wrong with the
        request is told by its ``Finished``."""
        self._arrivals += 1
        try:
            stream = new_stream(
                submit,
                self._arrivals,
                vocab_size=self.decoder.vocab_size,
                slot_tokens=self.decoder.slot_tokens,
                choose=self._choose,
                constraint=constraint,
            )
        except AtlasdError as error:
            self.refuse(submit, "error", str(error))
        else:
            self._streams[submit.stream] = stream

    def refuse(self, submit: Submit, reason: str, message: str = "") -> None:
        """Tell the end of a stream that never began."""
        stats = StreamStats(prompt_tokens=len(submit.tokens) // 4)
        self.counters.end_of_stream(reason, stats)
        self._emit(Finished(submit.stream, reason, stats, message))

    def cancel(self, number: int) -> None:
        """End a stream now; its slot is free for the next step. Unknown numbers are ignored."""
        if stream := self._streams.get(number):
            self._end(stream, "cancelled")

    def promote(self, number: int, priority: Priority) -> None:
        """Give a stream another priority from now on."""
        if stream := self._streams.get(number):
            stream.priority = priority

    def set_planning(self, planning: Planning | None) -> None:
        """Draft with this from now on (None: not at all); the drafters so far see an end."""
        if self.planning is not None:
            for stream in self._streams.values():
                self.planning.end(stream)
        self.planning = planning

    @property
    def streams(self) -> int:
        """Streams that have a slot."""
        return len(self._streams) - self.queued

    @property
    def queued(self) -> int:
        """Streams that wait for one."""
        return sum(stream.phase is Phase.QUEUED for stream in self._streams.values())

    @property
    def busy(self) -> bool:
        """Whether there is anything to step."""
        return bool(self._streams)

    @property
    def urgent(self) -> bool:
        """Whether somebody waits for a completion."""
        return any(s.priority is Priority.COMPLETION for s in self._streams.values())

    def replace(self, decoder: Decoder) -> None:
        """Serve with another decoder of the same shape from now on; no stream may be there.

        Nothing that was cached is of use to it."""
        assert not self._streams
        self.decoder = decoder
        self._schedule = Schedule(decoder, lambda: self.counters.add("preempted"))
        self.slots = self._schedule.slots

    def cancel_all(self) -> None:
        """End every stream, before the engine is shut down."""
        for number in list(self._streams):
            self.cancel(number)

    def check_integrity(self) -> None:
        """Raise AssertionError if slots and streams contradict each other."""
        self.slots.check_integrity()
        held = [stream.slot for stream in self._streams.values() if stream.slot >= 0]
        assert len(held) == len(set(held)) == self.decoder.slots - self.slots.free
        for stream in self._streams.values():
            assert stream.phase is not Phase.ENDED
            assert (stream.slot >= 0) == (stream.phase is not Phase.QUEUED)
            assert 0 <= stream.fed <= len(stream.tokens)

    def _end(self, stream: Stream, reason: str, message: str = "") -> None:
        del self._streams[stream.number]
        if stream.slot >= 0:
            self._schedule.leave(stream)
        stream.enter(Phase.ENDED)
        stream.sum_up()
        self.counters.end_of_stream(reason, stream.stats)
        self._emit(Finished(stream.number, reason, stream.stats, message))
        # Drafters may take their time with what they keep of it; nobody waits for that.
        if self.planning is not None:
            self.planning.end(stream)

    def _fail(self, stream: Stream, error: Exception) -> None:
        if stream.phase is Phase.ENDED:
            log.error("after the end of a stream: %s", error, exc_info=error)
            return
        log.error("stream %d failed", stream.number, exc_info=error)
        if not isinstance(error, AtlasdError):
            error = AtlasdError(f"The engine failed on this request ({error}).", "See the log.")
        self._end(stream, "error", str(error))
