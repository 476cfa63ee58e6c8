"""How far each stream drafts in the next step, and with whose tokens.

The rule maximises tokens per second: over all streams at once, the rows with the largest reach
probability (the product of confidences up to them) are taken while expected tokens over measured
milliseconds grows; plain decoding is always among the alternatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

from atlasd_kernels.cpu.plan import MOST_ROWS, MOST_STREAMS, plan_library

from atlasd.draft.assembling import Assembling
from atlasd.draft.chain import Chain
from atlasd.draft.confidence import Confidence
from atlasd.draft.cut import NO_OTHERS, Costs, CostTable, Others, Priced, cut
from atlasd.draft.drafter import EMPTY, Draft, Drafter, FirstChoices, StreamView, VerifiedRows
from atlasd.draft.grammar import Grammar
from atlasd.draft.mixture import FEATURES, PRIOR, Mixture
from atlasd.draft.native import NativeMixture
from atlasd.draft.neural import Neural
from atlasd.draft.packed import PackedStep
from atlasd.draft.plan import Candidate, Plan, StepRecord
from atlasd.draft.planner import NATIVE
from atlasd.draft.planner_ahead import PlannerAhead, Prepared
from atlasd.draft.taken import TakenSteps, TakenStream


class Controller(Assembling):
    """Plans drafts and learns from what became of them. One per engine; not thread-safe."""

    def __init__(
        self,
        drafters: Sequence[Drafter],
        confidence: Confidence,
        costs: Costs,
        *,
        native: bool = True,
    ) -> None:
        """``native`` False: plan in Python also what could be planned natively."""
        super().__init__(confidence)
        self.drafters: list[Drafter] = []
        self._listeners: list[Drafter] = []
        """Those that are only told of streams, beside the text drafter and the paid one."""
        self._library = plan_library() if native else None
        self._native: PlannerAhead | None = None
        self._tokens_per_ms = 0.0
        """What is being achieved, per stream."""
        self.costs = CostTable(costs)
        for drafter in drafters:
            self.add(drafter)

    def add(self, drafter: Drafter) -> None:
        """Ask this drafter as well; streams must begin after it was added."""
        self.drafters.append(drafter)
        if isinstance(drafter, Neural):
            self._paid.append(drafter)
        elif drafter.free:
            self._free.append(drafter)
        if isinstance(drafter, Mixture):
            self._text = drafter
            self.confidence.start(drafter.name, FEATURES, PRIOR)
        elif not isinstance(drafter, Neural | Grammar):
            self._listeners.append(drafter)
        self._native = self._native_planner()

    def _native_planner(self) -> PlannerAhead | None:
        """The planner, where nobody drafts whom it does not know."""
        library = self._library
        if library is None or not isinstance(self._text, NativeMixture) or len(self._paid) > 1:
            return None
        if any(free is not self._text and not isinstance(free, Grammar) for free in self._free):
            return None
        # A drafter with a judgement of its own on when to be asked is asked by it.
        if any(type(drafter).gain is not Neural.gain for drafter in self._paid):
            return None
        return self._native or PlannerAhead(self._text, library)

    @property
    def natively(self) -> bool:
        """Whether streams without a constraint are planned in native code."""
        return self._native is not None

    def take_beside(self, milliseconds: float) -> None:
        """A step takes so long beside its rows, however many these are."""
        self.costs.beside_ms = milliseconds

    def begin(self, stream: StreamView) -> None:
        """A stream starts; call before its first ``plan``."""
        self._opened(stream)
        for drafter in self.drafters:
            drafter.begin(stream)

    def plan(
        self,
        streams: Sequence[StreamView],
        room: int,
        limits: Sequence[int] | None = None,
        others: Others = NO_OTHERS,
    ) -> Plan:
        """Drafts for the next step of ``streams``.

        ``room``: drafted rows the step can take beyond one row per stream. ``limits``: per stream
        the longest draft that still makes sense (tokens left to generate minus one, slot space).
        ``others`` take the step too.
        """
        started = perf_counter()
        priced = self._priced(streams, room, limits, others)
        if self._native is not None and _usual(streams, room):
            return self._native.plan(streams, priced, self._terms, self._ask_paid)
        price = priced.price
        candidates: list[list[Candidate]] = []
        assembled: list[Chain] = []
        for stream, limit in zip(streams, priced.limits, strict=True):
            considered: list[Candidate] = []
            assembled.append(self._assemble(stream, limit, price, considered))
            candidates.append(considered)
        reaches = [chain.reach for chain in assembled]
        lookahead, compared = cut(reaches, price.milliseconds, room, others.streams)
        drafts = [
            chain.draft(count) if count else EMPTY
            for chain, count in zip(assembled, lookahead, strict=True)
        ]
        record = StepRecord(
            [stream.stream for stream in streams],
            candidates,
            assembled,
            lookahead,
            compared,
            (perf_counter() - started) * 1e3,
        )
        return Plan(drafts, record)

    def _priced(
        self,
        streams: Sequence[StreamView],
        room: int,
        limits: Sequence[int] | None,
        others: Others,
    ) -> Priced:
        count = len(streams) + others.streams
        self._worth_per_ms = self._tokens_per_ms * count
        kv_tokens = sum([len(stream.tokens) for stream in streams]) + others.kv_tokens
        price = self.costs.for_step(count, room, kv_tokens)
        # Beside others no stream will get nearly all rows: do not draft what cannot be verified.
        share = room if count == 1 else min(room, max(8, 3 * room // count))
        if limits is None:
            limits = [share] * len(streams)
        longest = [limit if limit < share else share for limit in limits]
        return Priced(price, room, longest, others.streams)

    # Native steps

    def prepare(
        self,
        streams: Sequence[StreamView],
        room: int,
        limits: Sequence[int],
        others: Others = NO_OTHERS,
    ) -> Prepared | None:
        """What the next steps of ``streams`` plan with, if they can be planned natively from end to
        end; the rest as in ``plan``."""
        if self._native is None or not _usual(streams, room):
            return None
        priced = self._priced(streams, room, limits, others)
        return self._native.prepare(streams, priced, self._terms)

    def took(self, stream: StreamView, mine: TakenStream, taken: TakenSteps) -> None:
        """Steps were taken so, and one stream's tokens appended to ``stream.tokens``. Call for each
        stream that ``prepare`` was called for, then ``all_took``."""
        assert self._native is not None
        told = mine.tokens[: mine.told]
        for source, count in mine.drafted.items():
            self._tally(source, count, mine.accepted.get(source, 0))
        planned = 0
        for one, step in zip(mine.each, taken.each, strict=True):
            if one.planned:
                planned += 1
                self._achieved(one.verified, step.forward_ms)
        for paid in self._paid:  # ``prepare`` has counted one
            paid.worth.step(planned - (taken.wanting < 0), self._worth_per_ms)
        self._verify_open(stream, told)
        self._native.took(stream, told, mine)
        for listener in self._listeners:
            listener.observe(stream, told, None)

    def all_took(self, waiting: Sequence[StreamView], taken: TakenSteps) -> list[PackedStep | None]:
        """All of them have been told of; for one of those ``waiting`` a drafter is wanted, if that
        is why the steps ended. Of each step, why it was planned as it was; None: it was plain."""
        assert self._native is not None
        self.costs.used(len(taken.each) - 1)
        if taken.wanting >= 0:
            self._native.wants(waiting, taken.wanting)
        return self._native.records(taken)

    def settle(
        self,
        stream: StreamView,
        draft: Draft,
        accepted: int,
        tokens: list[int],
        rows: VerifiedRows | None,
        step_ms: float,
    ) -> None:
        """One stream's share of a finished step; call for every planned stream, plain ones too.

        ``draft`` is what ``plan`` gave, ``accepted`` how many of its tokens were the target's,
        ``tokens`` what was verified (already appended to ``stream.tokens``), ``rows`` the target's
        top choices where they were computed, ``step_ms`` the time of the whole step.
        """
        if draft.tokens:
            self._count(draft, accepted)
            if isinstance(draft.credit, Chain):
                draft.credit.settle(len(draft.tokens), accepted)
        if step_ms > 0.0:
            self._achieved(len(tokens), step_ms)
        self._verify_open(stream, tokens)
        if self._native is not None and (not draft.tokens or draft.credit is NATIVE):
            best = _best_of(rows)
            self._native.settle(stream, len(draft.tokens), accepted, tokens, best)
            for listener in self._listeners:
                listener.observe(stream, tokens, rows)
            return
        for drafter in self.drafters:
            drafter.observe(stream, tokens, rows)

    def end(self, stream: StreamView) -> None:
        """The stream is over, finished or cancelled."""
        self._open.pop(stream.stream, None)
        for drafter in self.drafters:
            drafter.end(stream)

    def _achieved(self, tokens: int, step_ms: float) -> None:
        achieved = tokens / (step_ms + self.costs.beside_ms)
        weight = 0.05 if self._tokens_per_ms else 1.0
        self._tokens_per_ms += weight * (achieved - self._tokens_per_ms)


def _usual(streams: Sequence[StreamView], room: int) -> bool:
    """Whether the native planner has room for these, and knows all there is to them."""
    if len(streams) > MOST_STREAMS or room > MOST_ROWS:
        return False
    return not [stream for stream in streams if stream.constraint is not None]


def _best_of(rows: VerifiedRows | None) -> list[int] | None:
    """The target's first choice at each row."""
    if rows is None:
        return None
    if isinstance(rows, FirstChoices):
        return rows.best
    best: list[int] = rows.top[:, 0].tolist()
    return best
