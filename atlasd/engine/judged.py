"""What is kept of running streams for drafting, and how drafting is judged.

A drafter that raises costs its stream the draft, never the stream.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from atlasd.draft.controller import Controller
from atlasd.draft.drafter import EMPTY
from atlasd.draft.plan import Record
from atlasd.engine.beside import Beside
from atlasd.engine.clock import StepClock
from atlasd.engine.costs import StepCosts
from atlasd.engine.outcomes import Outcome, Step, gains_ms
from atlasd.engine.pace import Pace, Usual
from atlasd.engine.streams import Stream

log = logging.getLogger(__name__)

KEPT_STREAMS, KEPT_STEPS = 32, 256
"""Records that can be asked for by ``explain``: of so many streams, so many steps each."""

COSTS_STAY = 512
"""Uses of looked-up step costs after which they are looked up again: they are being measured."""

PATIENCE = 3
"""After this many failures in a row drafting is switched off."""

RESTING: dict[str, object] = {
    "candidates": [],
    "lookahead": 0,
    "reason": "drafting rests: in this stream it has cost more than it gained",
}


@dataclass(slots=True, eq=False)
class Drafted:
    """What is kept of a running stream."""

    pace: Pace
    records: deque[Record | None]
    told: int = 0
    """How many of its tokens the drafters know."""
    spent_ms: float = 0.0
    """What planning its last step took, and learning from the one before."""
    plain_ms: float = 0.0
    """Its share of the last step, had nobody drafted; zero until there was one."""

    def rested(self, steps: int) -> None:
        """So many of its steps were plain because drafting rests."""
        self.pace.rested(steps)
        self.records.extend([None] * steps)


@dataclass(slots=True, eq=False)
class Quiet:
    """Steps for which drafting rests in all of these streams: nothing is looked at in them."""

    streams: list[int]
    steps: int
    """So many more."""
    taken: int
    """So many are over, of which their streams do not know yet."""


class Judged:
    """Streams that are drafted for. ``costs`` are those of the engine; without them every step is
    planned, whether that pays or not."""

    def __init__(
        self,
        controller: Controller,
        costs: StepCosts | None = None,
        clock: StepClock | None = None,
    ) -> None:
        self.on = True
        self._now = (clock or StepClock()).own
        self._controller = controller
        self._costs = costs
        self._usual = Usual()
        self.beside = Beside()
        """Of steps one by one."""
        self.native: defaultdict[int, Beside] = defaultdict(Beside)
        """Of native steps, by the number of streams that take them together."""
        self.calling: defaultdict[int, Beside] = defaultdict(Beside)
        """Of a call that takes plain ones, likewise."""
        self.spent_ms = 0.0
        """All that planning and learning took so far."""
        self.once_ms = 0.0
        """What taking streams up and ending them took."""
        self._failures = 0
        self._drafted: dict[int, Drafted] = {}
        self._quiet = Quiet([], 0, 0)
        self._known_ms: dict[tuple[int, int], float] = {}
        self._known_uses = 0
        self._records: OrderedDict[int, deque[Record | None]] = OrderedDict()

    @property
    def taken_ms(self) -> float:
        """All that drafting took so far."""
        return self.spent_ms + self.once_ms

    def end(self, stream: Stream) -> None:
        """The stream is over."""
        self._wake()
        kept = self._drafted.get(stream.number)
        if stream.begun and kept is not None:
            stream.begun = False
            started = self._now()
            try:
                self._catch_up(stream)
                self._controller.end(stream.view)
            except Exception:
                self._failed("ending a stream")
            self._took(stream, kept, (self._now() - started) * 1e3)
            if self._costs is not None:  # what no later step was charged with
                kept.pace.took(kept.spent_ms, self._share_ms(stream, kept))
            kept.pace.ended()
        self._drafted.pop(stream.number, None)

    def explain(self, number: int) -> list[dict[str, object]]:
        """The kept steps of a stream, oldest first."""
        self._wake()
        records = self._records.get(number, ())
        return [RESTING if record is None else record.explain(number) for record in records]

    def _wake(self) -> None:
        """Quiet steps are over, or somebody asks about them."""
        quiet = self._quiet
        for number in quiet.streams if quiet.taken else ():
            kept = self._drafted.get(number)
            if kept is not None:
                kept.rested(quiet.taken)
        quiet.steps = quiet.taken = 0

    def _judge(
        self, kept: Drafted, step: Step, beside_ms: float, outcomes: Sequence[Outcome]
    ) -> None:
        """What planned steps like ``step`` have brought a stream goes to its pace."""
        if self._costs is None:
            return
        streams, rows, kv_tokens = step
        kept.plain_ms = share_ms = self._ms(rows, kv_tokens) / streams
        gains = gains_ms(step, beside_ms, outcomes, self._ms)
        for gained_ms, outcome in zip(gains, outcomes, strict=True):
            kept.pace.settled(gained_ms, outcome.spent_ms, share_ms, streams)

    def _spent(self, streams: Sequence[Stream], started: float) -> None:
        """Planning or learning went on since then; the streams' next step is charged with it."""
        spent_ms = (self._now() - started) * 1e3
        self.spent_ms += spent_ms
        share = spent_ms / len(streams)
        for stream in streams:
            self._drafted[stream.number].spent_ms += share
            stream.stats.draft_ms += share

    def _first(self, stream: Stream, streams: int = 1) -> Drafted:
        """A stream is met for the first time, or drafting was off and on again; so many decode
        together."""
        records = self._records[stream.number] = deque[Record | None](maxlen=KEPT_STEPS)
        if len(self._records) > KEPT_STREAMS:
            self._records.popitem(last=False)
        crowding = 0.0
        if streams > 1 and self._costs is not None:
            crowding = 1.0 - self._ms(1, stream.fed) / self._ms(streams, stream.fed)
        kept = Drafted(Pace(self._usual.of(stream.view, streams, crowding)), records)
        self._drafted[stream.number] = kept
        return kept

    def _ready(self, stream: Stream, kept: Drafted, started: float) -> float:
        """Have the drafters know of the stream and of all its tokens; the time from which on what
        is done belongs to its next step."""
        if not stream.begun:
            stream.begun = True
            kept.told = len(stream.view.tokens)
            self._controller.begin(stream.view)
            # Once in a stream: what it costs is not what the next steps will.
            began = self._now()
            self._took(stream, kept, (began - started) * 1e3)
            return began
        if kept.told < len(stream.view.tokens):
            self._catch_up(stream)
        return started

    def _took(self, stream: Stream, kept: Drafted, spent_ms: float) -> None:
        """Taking a stream up or ending it took so long."""
        self.once_ms += spent_ms
        stream.stats.draft_ms += spent_ms
        if self._costs is not None:
            kept.pace.took(spent_ms, self._share_ms(stream, kept))

    def _share_ms(self, stream: Stream, kept: Drafted) -> float:
        return kept.plain_ms or self._ms(1, stream.fed)

    def _catch_up(self, stream: Stream) -> None:
        """Tell the drafters of tokens that were decoded while they rested."""
        kept, length = self._drafted[stream.number], len(stream.view.tokens)
        if kept.told < length:
            unknown = stream.view.tokens[kept.told :]
            kept.told = length
            self._controller.settle(stream.view, EMPTY, 0, unknown, None, 0.0)

    def _ms(self, rows: int, kv_tokens: int) -> float:
        """What a step costs; looked up now and then."""
        self._known_uses += 1
        if self._known_uses > COSTS_STAY:
            self._known_uses = 0
            self._known_ms.clear()
        key = rows, kv_tokens >> 9
        known = self._known_ms.get(key)
        if known is None:
            assert self._costs is not None
            known = self._known_ms[key] = self._costs.ms(rows, kv_tokens)
        return known

    def _failed(self, doing: str) -> None:
        self._failures += 1
        log.exception("a drafter failed while %s", doing)
        if self._failures >= PATIENCE:
            self.on = False
            log.error("drafting is off after %d failures in a row", self._failures)
