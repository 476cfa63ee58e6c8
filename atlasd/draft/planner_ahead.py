"""Planning in native code for steps that streams take several at a time (``engine.multistep``)."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

from atlasd.draft.cut import Priced
from atlasd.draft.drafter import StreamView
from atlasd.draft.packed import PackedStep
from atlasd.draft.planner import SIZE, NativePlanner, Terms, lengths
from atlasd.draft.taken import TakenSteps, TakenStream


@dataclass(frozen=True, slots=True)
class Prepared:
    """What native steps plan with."""

    addresses: tuple[int, int, int]
    """Of the planner and its prices; and the position index's clock."""
    questions: list[tuple[int, int]]
    """Of each stream, where its question lies and how long a draft may be."""
    room: int
    """Drafted rows of a step at most."""


class PlannerAhead(NativePlanner):
    """Hands native steps what they plan with, and learns what became of them."""

    def prepare(self, streams: Sequence[StreamView], priced: Priced, terms: Terms) -> Prepared:
        """For native steps."""
        self._put(streams, priced, terms)
        questions = []
        for at, (stream, limit) in enumerate(zip(streams, priced.limits, strict=True)):
            self.text.ready_to_grow(stream)
            questions.append((self._questions_at + at * SIZE, limit))
        clock = self.text.positions.index.clock
        return Prepared((self._handle, self._prices_at, clock), questions, priced.room)

    def took(self, stream: StreamView, told: list[int], taken: TakenStream) -> None:
        """Native steps were taken, of which planned ones verified ``told``."""
        text = self.text
        for segment, accepted in taken.credits:
            text.credit(segment, accepted)
        text.grew(stream, len(told) - taken.unwritten)
        if taken.unwritten:
            last = taken.each[-1].verified
            raw = array("i", told[-last:])
            best = array("i", taken.best) if taken.best is not None else None
            best_at, rows = best.buffer_info() if best is not None else (None, 0)
            address, handle = raw.buffer_info()[0], text.handles[stream.stream]
            text.grow(stream, address, last - taken.unwritten, last)
            self._library.learn(self._handle, handle, address, last, best_at, rows)

    def wants(self, streams: Sequence[StreamView], wanting: int) -> None:
        """Native steps of these streams ended because the paid drafter is wanted for one of
        them."""
        self._asking = lengths(streams), wanting

    def records(self, taken: TakenSteps) -> list[PackedStep | None]:
        """Of each native step, why it was planned as it was; None: it was plain."""
        found: list[PackedStep | None] = []
        begin = 0
        for one in taken.each:
            if not one.record_bytes:
                found.append(None)
                continue
            raw = taken.records[begin : begin + one.record_bytes]
            found.append(PackedStep(raw, self._names, one.planning_ms))
            begin += one.record_bytes
        return found
