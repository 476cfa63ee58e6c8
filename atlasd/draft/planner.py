"""Planning in native code: what ``Controller`` plans in Python, for the streams it usually has.

That is the text drafter with at most one that costs time to ask, and no constraint: proposing,
confidence, the question whether asking pays, the cut by measured costs and the record are one
call, learning from a step another. Whatever else there is goes the way of ``Controller``, which
drafts the same.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Sequence
from itertools import groupby
from struct import Struct
from time import perf_counter
from typing import Any, cast
from weakref import finalize

from atlasd_kernels.cpu.plan import (
    MOST_STREAMS,
    Outcome,
    PlanLibrary,
    Prices,
    Question,
    Settled,
)

from atlasd.draft.cut import Price, Priced
from atlasd.draft.drafter import EMPTY, Draft, StreamView
from atlasd.draft.native import NativeMixture
from atlasd.draft.packed import PackedStep
from atlasd.draft.plan import Plan

NATIVE = object()
"""Credit of a native plan's drafts: the native side knows whose tokens they are."""

SOURCES = ("recycle", "positions")
"""Of the text drafter's tokens, by their number on the native side."""

_ASK = Struct("=Qiidd").pack_into
SIZE = ctypes.sizeof(Question)

Terms = Callable[[StreamView, bool], tuple[float, float]]
"""Of asking the paid drafter about a stream, for the first time in a step or again: accepted tokens
it brings, and what it costs in them; the first is negative where there is none, and infinite where
it is tried in any case."""

Ask = Callable[[StreamView, list[int], float, int, float], tuple[str, list[int], list[float]]]
"""Ask it: stream, the chain so far and its reach, how many tokens, and the reach below which no
row pays; name, tokens, confidence."""


class NativePlanner:
    """Plans of one ``NativeMixture``."""

    def __init__(self, text: NativeMixture, library: PlanLibrary) -> None:
        self.text = text
        self._library = library
        self._handle = library.new(text.handle)
        finalize(self, library.free, self._handle)
        self._questions = (Question * MOST_STREAMS)()
        self._questions_at = ctypes.addressof(self._questions)
        self._prices = Prices()
        self._prices_at = ctypes.addressof(self._prices)
        self._price: Price | None = None
        self._room = -1
        outcome = Outcome.from_address(library.outcome(self._handle))
        self._outcome = outcome
        # Views of plain numbers are several times as quick as a structure's fields.
        raw = memoryview(outcome).cast("B")
        self._sizes = raw[Outcome.record_bytes.offset :][:8].cast("i")
        self._lookahead = _field(raw, Outcome.lookahead, "i")
        self._foreseen = _field(raw, Outcome.foreseen, "d")
        self._tokens = _field(raw, Outcome.tokens, "i")
        self._origin = _field(raw, Outcome.origin, "B")
        self._settled = Settled()
        self._settled_at = ctypes.addressof(self._settled)
        self._names: list[str] = [text.name]
        self._sources = list(SOURCES)
        self._asking: tuple[list[tuple[int, int]], int] = [], 0
        """Streams and their lengths where native steps ended because the paid drafter is wanted,
        and for which of them."""

    def plan(self, streams: Sequence[StreamView], priced: Priced, terms: Terms, ask: Ask) -> Plan:
        """Drafts for the next step."""
        started = perf_counter()
        count = len(streams)
        run, clock = self._library.plan, self.text.positions.index.clock
        asking, waiting = self._asking
        if not asking or asking != lengths(streams):
            self._put(streams, priced, terms)
            waiting = run(self._handle, self._questions_at, count, self._prices_at, clock, 0)
        self._asking = [], 0
        while waiting >= 0:
            self._ask(streams[waiting], waiting, priced, terms, ask)
            waiting = run(self._handle, self._questions_at, count, self._prices_at, clock, 1)
        record_bytes, rows = self._sizes
        record = ctypes.string_at(self._outcome.record, record_bytes)
        sizes = self._lookahead[:count].tolist()
        whole = list(zip(sizes, self._foreseen[:count].tolist(), strict=True))
        spent_ms = (perf_counter() - started) * 1e3
        packed = PackedStep(record, self._names, spent_ms, whole)
        if not rows:
            return Plan([EMPTY] * count, packed)
        drafts, begin = [], 0
        for size in sizes:
            drafts.append(self._draft(begin, begin + size) if size else EMPTY)
            begin += size
        return Plan(drafts, packed)

    def settle(
        self,
        stream: StreamView,
        drafted: int,
        accepted: int,
        tokens: list[int],
        best: Sequence[int] | None,
    ) -> None:
        """Learn from verified ``tokens``: of the plan's first ``drafted`` for this stream
        ``accepted`` were right. ``best``: the target's first choices at all rows."""
        text, settled = self.text, self._settled
        text.attach()
        raw = array("i", tokens)
        address, count = raw.buffer_info()
        choices = array("i", best) if best is not None else None
        best_at, rows = choices.buffer_info() if choices is not None else (None, 0)
        handle = text.ready_to_grow(stream)
        written = self._library.settle(
            *(self._handle, handle, address, count, drafted, accepted, best_at, rows),
            self._settled_at,
        )
        if drafted:
            for at in range(settled.credits):
                text.credit(settled.segment[at], settled.credit[at])
        text.grew(stream, written)
        if written < count:
            text.grow(stream, address, written, count)
            self._library.learn(self._handle, handle, address, count, best_at, rows)

    def _put(self, streams: Sequence[StreamView], priced: Priced, terms: Terms) -> None:
        """Ask for drafts of steps that cost so much."""
        text = self.text
        text.attach()
        handles = text.handles
        for at, stream in enumerate(streams):
            brought, worth = terms(stream, True)
            asked = handles[stream.stream], stream.stream, priced.limits[at]
            _ASK(self._questions, at * SIZE, *asked, brought, worth)
        prices, price, room = self._prices, priced.price, priced.room
        prices.others = priced.others
        if price is not self._price or room != self._room:
            self._price, self._room = price, room
            prices.milliseconds, prices.room = price.address, room
            prices.least_reach, prices.worth_asking = price.least_reach, price.worth_asking

    def _ask(self, stream: StreamView, at: int, priced: Priced, terms: Terms, ask: Ask) -> None:
        """Put the paid drafter's proposal behind the chain of the ``at``-th stream."""
        _, rows = self._sizes
        chain, limit = self._tokens[:rows].tolist(), priced.limits[at] - rows
        least = priced.price.least_reach
        name, tokens, confidence = ask(stream, chain, self._foreseen[0], limit, least)
        if name not in self._names:
            self._names.append(name)
            self._sources.append(name)
        raw, sure = array("i", tokens), array("d", confidence)
        self._library.offer(
            *(self._handle, self.text.handles[stream.stream], self._names.index(name)),
            *(raw.buffer_info()[0], sure.buffer_info()[0], min(len(raw), len(sure))),
        )
        question = self._questions[at]
        question.brought, question.worth = terms(stream, False)

    def _draft(self, begin: int, end: int) -> Draft:
        sources, origin = self._sources, self._origin[begin:end].tolist()
        first = origin[0]
        if origin.count(first) == end - begin:
            parts: tuple[tuple[str, int], ...] = ((sources[first], end - begin),)
        else:
            parts = tuple((sources[one], len(list(run))) for one, run in groupby(origin))
        tokens = self._tokens[begin:end].tolist()
        return Draft(parts[0][0], tokens, credit=NATIVE, parts=parts)


def lengths(streams: Sequence[StreamView]) -> list[tuple[int, int]]:
    """Numbers and lengths of streams: what is planned for them depends on these."""
    return [(stream.stream, len(stream.tokens)) for stream in streams]


def _field(raw: memoryview, field: Any, kind: str) -> Any:
    """A field of the outcome as numbers."""
    begin = field.offset
    return cast("Any", raw[begin : begin + field.size]).cast(kind)
