"""How far each stream drafts in the next step, and with whose tokens.

The rule maximises tokens per second: over all streams at once, the rows with the largest reach
probability (the product of confidences up to them) are taken while expected tokens over measured
milliseconds grows; plain decoding is always among the alternatives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter

from atlasd.draft.confidence import Confidence
from atlasd.draft.cut import Costs, CostTable, cut
from atlasd.draft.drafter import EMPTY, Draft, Drafter, StreamView, VerifiedRows
from atlasd.draft.mixture import FEATURES, PRIOR, Mixture
from atlasd.draft.neural import Neural
from atlasd.draft.plan import Candidate, Plan, StepRecord
from atlasd.draft.proposals import OpenProposals, Proposal, Tally

Trim = Callable[[StreamView, Sequence[int]], int]
"""How many of a stream's drafted tokens are allowed."""

_CONTINUATIONS = 3


class Controller:
    """Plans drafts and learns from what became of them. One per engine; not thread-safe."""

    def __init__(self, drafters: Sequence[Drafter], confidence: Confidence, costs: Costs) -> None:
        self.drafters: list[Drafter] = []
        self._free: list[Drafter] = []
        self._paid: list[Neural] = []
        self._text: Mixture | None = None
        self._trim: Trim | None = None
        self._tokens_per_ms = 0.0
        """What is being achieved, per stream: the worth of a drafter's time."""
        self.confidence = confidence
        self.costs = CostTable(costs)
        self.tallies: dict[str, Tally] = {}
        self._open: dict[int, OpenProposals] = {}
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

    def trim_with(self, trim: Trim) -> None:
        """Cut chains to what ``trim`` says is allowed of them (a grammar)."""
        self._trim = trim

    def begin(self, stream: StreamView) -> None:
        """A stream starts; call before its first ``plan``."""
        scope = self.confidence.scope(stream.repository, stream.language)
        self._open[stream.stream] = OpenProposals(scope)
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
        milliseconds = self.costs.for_step(
            len(streams), room, sum([len(stream.tokens) for stream in streams])
        )
        # Beside others no stream will get nearly all rows: do not draft what cannot be verified.
        share = room if len(streams) == 1 else min(room, max(8, 3 * room // len(streams)))
        candidates: list[list[Candidate]] = []
        assembled: list[_Chain] = []
        for index, stream in enumerate(streams):
            limit = share if limits is None else min(share, limits[index])
            considered: list[Candidate] = []
            assembled.append(self._assemble(stream, limit, considered))
            candidates.append(considered)
        lookahead, compared = cut([chain.reach for chain in assembled], milliseconds, room)
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
            if isinstance(draft.credit, _Chain):
                draft.credit.settle(stream, len(draft.tokens), accepted)
        if step_ms > 0.0:
            achieved = len(tokens) / step_ms
            weight = 0.05 if self._tokens_per_ms else 1.0
            self._tokens_per_ms += weight * (achieved - self._tokens_per_ms)
        opened = self._open[stream.stream]
        if not stream.learn:
            opened.waiting.clear()
        elif opened.waiting:
            opened.settle(tokens, self.confidence, self.tallies)
        for drafter in self.drafters:
            drafter.observe(stream, tokens, rows)

    def end(self, stream: StreamView) -> None:
        """The stream is over, finished or cancelled."""
        self._open.pop(stream.stream, None)
        for drafter in self.drafters:
            drafter.end(stream)

    def _count(self, draft: Draft, accepted: int) -> None:
        left = len(draft.tokens)
        for source, count in draft.parts or ((draft.source, left),):
            tally = self.tallies.get(source)
            if tally is None:
                tally = self.tallies[source] = Tally()
            count = min(count, left)
            tally.drafted += count
            tally.accepted += max(0, min(accepted, count))
            left -= count
            accepted -= count
            if left <= 0:
                break

    def _assemble(self, stream: StreamView, limit: int, considered: list[Candidate]) -> _Chain:
        """The best chain for a stream: the most promising drafter's, continued by whoever has
        something to say where it ends."""
        chain = _Chain()
        if limit <= 0 or not stream.tokens:
            return chain
        if self._text is not None:
            self._text.least_reach = self.costs.least_reach
        asked = 0
        while asked <= _CONTINUATIONS and len(chain.tokens) < limit:
            best: tuple[float, Drafter, Draft, list[float]] | None = None
            for drafter in self._free:
                best = self._ask(drafter, stream, chain, limit, considered, best)
            reach = chain.reach[-1] if chain.reach else 1.0
            for paid in self._paid:
                expected = best[0] * reach if best is not None else 0.0
                if paid.gain(stream, reach, self._tokens_per_ms) > expected:
                    best = self._ask(paid, stream, chain, limit, considered, best)
            if best is None:
                break
            chain.add(best[1], best[2], best[3])
            if self._trim is not None:
                allowed = self._trim(stream, chain.tokens)
                if allowed < len(chain.tokens):
                    chain.cut(allowed)
                    if not allowed:
                        break
            if chain.reach[-1] < self.costs.worth_asking:
                break
            asked += 1
        return chain

    def _ask(
        self,
        drafter: Drafter,
        stream: StreamView,
        chain: _Chain,
        limit: int,
        considered: list[Candidate],
        best: tuple[float, Drafter, Draft, list[float]] | None,
    ) -> tuple[float, Drafter, Draft, list[float]] | None:
        """The better of ``best`` and what a drafter proposes behind ``chain``."""
        draft = drafter.propose(stream, chain.tokens, limit - len(chain.tokens))
        if not draft.tokens:
            return best
        probabilities = draft.probabilities
        if probabilities is None:
            opened = self._open[stream.stream]
            previous = chain.tokens[-1] if chain.tokens else stream.tokens[-1]
            reach = chain.reach[-1] if chain.reach else 1.0
            probabilities = self.confidence.predict(
                draft.source,
                opened.scope,
                previous,
                draft.tokens,
                draft.features,
                self.costs.least_reach / reach,
            )
            opened.waiting.append(Proposal(draft, previous, list(chain.tokens), probabilities))
        considered.append(Candidate(draft.source, draft.tokens, probabilities))
        expected, product = 0.0, 1.0
        for probability in probabilities:
            product *= probability
            expected += product
        if best is None or expected > best[0]:
            return expected, drafter, draft, probabilities
        return best


class _Chain:
    """A draft under assembly: parts of several drafters, with the reach of each token."""

    __slots__ = ("confidence", "parts", "reach", "tokens")

    def __init__(self) -> None:
        self.parts: list[tuple[Drafter, Draft, int]] = []
        self.tokens: list[int] = []
        self.confidence: list[float] = []
        self.reach: list[float] = []

    def add(self, drafter: Drafter, draft: Draft, probabilities: list[float]) -> None:
        reach = self.reach[-1] if self.reach else 1.0
        for probability in probabilities:
            reach *= probability
            self.reach.append(reach)
        self.confidence += probabilities
        self.tokens += draft.tokens[: len(probabilities)]
        self.parts.append((drafter, draft, len(probabilities)))

    def cut(self, count: int) -> None:
        """Keep the first ``count`` tokens."""
        del self.tokens[count:], self.confidence[count:], self.reach[count:]
        kept: list[tuple[Drafter, Draft, int]] = []
        for drafter, draft, size in self.parts:
            if count > 0:
                kept.append((drafter, draft, min(size, count)))
            count -= size
        self.parts = kept

    @property
    def source(self) -> str:
        """Names of the drafters, in the order of their parts."""
        return " + ".join(dict.fromkeys(draft.source for _, draft, _ in self.parts)) or "none"

    def draft(self, count: int) -> Draft:
        """The first ``count`` tokens as one draft."""
        parts: list[tuple[str, int]] = []
        for _, draft, size in self.parts:
            for source, length in draft.parts or ((draft.source, size),):
                parts.append((source, min(length, size)))
                size -= parts[-1][1]
        return Draft(parts[0][0], self.tokens[:count], credit=self, parts=tuple(parts))

    def settle(self, stream: StreamView, verified: int, accepted: int) -> None:
        """Of the first ``verified`` tokens, which went to the target, ``accepted`` were right: tell
        each drafter about its part."""
        for drafter, draft, size in self.parts:
            size = min(size, verified)
            right = max(0, min(accepted, size))
            drafter.settle(draft, right)
            if isinstance(drafter, Neural):
                drafter.note(stream, right if accepted >= 0 else None)
            verified -= size
            accepted -= size
            if verified <= 0:
                break
