"""How far each stream drafts in the next step, and with whose tokens.

The rule maximises tokens per second: over all streams at once, the rows with the largest reach
probability (the product of confidences up to them) are taken while expected tokens over measured
milliseconds grows; plain decoding is always among the alternatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter
from typing import Protocol

from atlasd.draft.confidence import Confidence
from atlasd.draft.drafter import EMPTY, Draft, Drafter, StreamView, VerifiedRows
from atlasd.draft.plan import Candidate, Plan, StepRecord


class Costs(Protocol):
    """What a step costs on this machine with this model (``engine.costs.StepCosts``)."""

    def ms(self, rows: int, kv_tokens: int) -> float:
        """Milliseconds of a step of ``rows`` rows over ``kv_tokens`` cached tokens."""
        ...

    def bucket(self, rows: int) -> int:
        """The row count ``rows`` is padded to: rows up to there are free."""
        ...


class Controller:
    """Plans drafts and learns from what became of them. One per engine; not thread-safe."""

    def __init__(self, drafters: Sequence[Drafter], confidence: Confidence, costs: Costs) -> None:
        self.drafters = list(drafters)
        self.confidence = confidence
        self.costs = costs

    def begin(self, stream: StreamView) -> None:
        """A stream starts; call before its first ``plan``."""
        for drafter in self.drafters:
            drafter.begin(stream)

    def plan(
        self, streams: Sequence[StreamView], room: int, limits: Sequence[int] | None = None
    ) -> Plan:
        """Drafts for the next step of ``streams``.

        ``room``: drafted rows the step can take beyond one row per stream. ``limits``: per stream
        the longest draft that still makes sense (tokens left to generate minus one, slot space).
        """
        started = perf_counter()
        drafts: list[Draft] = []
        for index, stream in enumerate(streams):
            limit = min(room, limits[index] if limits is not None else room)
            best = EMPTY
            for drafter in self.drafters:
                draft = drafter.propose(stream, [], limit) if limit > 0 else EMPTY
                if len(draft.tokens) > len(best.tokens):
                    best = draft
            room -= len(best.tokens)
            drafts.append(best)
        chosen = [Candidate(d.source, d.tokens, [0.5] * len(d.tokens)) for d in drafts]
        record = StepRecord(
            [s.stream for s in streams],
            [[c] for c in chosen],
            chosen,
            [len(d.tokens) for d in drafts],
            [],
            (perf_counter() - started) * 1e3,
        )
        return Plan(drafts, record)

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
        for drafter in self.drafters:
            if drafter.name == draft.source:
                drafter.settle(draft, accepted)
            drafter.observe(stream, tokens, rows)

    def end(self, stream: StreamView) -> None:
        """The stream is over, finished or cancelled."""
        for drafter in self.drafters:
            drafter.end(stream)
