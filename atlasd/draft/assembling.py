"""A stream's chain: the most promising proposal, continued by whoever has something to say."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atlasd.draft.chain import Chain
from atlasd.draft.confidence import Confidence
from atlasd.draft.cut import Price
from atlasd.draft.drafter import Draft, Drafter, StreamView
from atlasd.draft.mixture import Mixture
from atlasd.draft.neural import Neural
from atlasd.draft.plan import Candidate
from atlasd.draft.scored import Scored

Trim = Callable[[StreamView, Sequence[int]], int]
"""How many of a stream's drafted tokens are allowed."""

_CONTINUATIONS = 3


class Assembling(Scored):
    """Chains of the drafters there are, in Python; and the paid drafter's part for those that are
    assembled natively."""

    def __init__(self, confidence: Confidence) -> None:
        super().__init__(confidence)
        self._free: list[Drafter] = []
        self._paid: list[Neural] = []
        self._text: Mixture | None = None
        self._trim: Trim | None = None
        self._worth_per_ms = 0.0
        """Of a drafter's time, in tokens: all streams of a step wait while one asks."""

    def trim_with(self, trim: Trim) -> None:
        """Cut chains to what ``trim`` says is allowed of them (a grammar)."""
        self._trim = trim

    def _assemble(
        self, stream: StreamView, limit: int, price: Price, considered: list[Candidate]
    ) -> Chain:
        """The best chain for a stream: the most promising drafter's, continued by whoever has
        something to say where it ends."""
        chain = Chain()
        if limit <= 0 or not stream.tokens:
            return chain
        if self._text is not None:
            self._text.least_reach = price.least_reach
        asked = 0
        while asked <= _CONTINUATIONS and len(chain.tokens) < limit:
            best: tuple[float, Drafter, Draft, list[float]] | None = None
            for drafter in self._free:
                best = self._ask(drafter, stream, chain, limit, price, considered, best)
            reach = chain.reach[-1] if chain.reach else 1.0
            for paid in self._paid:
                known = best[0] if best is not None else 0.0
                if paid.gain(stream, reach, self._worth_per_ms, known) > 0.0:
                    paid.aim(reach, self._worth_per_ms)
                    best = self._ask(paid, stream, chain, limit, price, considered, best)
            if best is None:
                break
            chain.add(best[1], best[2], best[3])
            if self._trim is not None:
                allowed = self._trim(stream, chain.tokens)
                if allowed < len(chain.tokens):
                    chain.cut(allowed)
                    if not allowed:
                        break
            if chain.reach[-1] < price.worth_asking:
                break
            asked += 1
        return chain

    def _ask(
        self,
        drafter: Drafter,
        stream: StreamView,
        chain: Chain,
        limit: int,
        price: Price,
        considered: list[Candidate],
        best: tuple[float, Drafter, Draft, list[float]] | None,
    ) -> tuple[float, Drafter, Draft, list[float]] | None:
        """The better of ``best`` and what a drafter proposes behind ``chain``."""
        draft = drafter.propose(stream, chain.tokens, limit - len(chain.tokens))
        probabilities = draft.probabilities
        if probabilities is None:
            reach = chain.reach[-1] if chain.reach else 1.0
            least = price.least_reach / reach
            probabilities = []
            if draft.tokens:
                probabilities = self._predict(stream, list(chain.tokens), draft, least)
        if isinstance(drafter, Neural):
            drafter.foretold(stream, probabilities)
        if not draft.tokens:
            return best
        considered.append(
            Candidate(draft.source, draft.tokens[: len(probabilities)], probabilities)
        )
        expected, product = 0.0, 1.0
        for probability in probabilities:
            product *= probability
            expected += product
        if best is None or expected > best[0]:
            return expected, drafter, draft, probabilities
        return best

    # What the native planner asks

    def _terms(self, stream: StreamView, first: bool) -> tuple[float, float]:
        for paid in self._paid:
            return paid.terms(stream, first, self._worth_per_ms)
        return -1.0, 0.0

    def _ask_paid(
        self, stream: StreamView, after: list[int], reach: float, limit: int, least: float
    ) -> tuple[str, list[int], list[float]]:
        paid = self._paid[0]
        paid.aim(reach, self._worth_per_ms)
        draft = paid.propose(stream, after, limit)
        found = self._predict(stream, after, draft, least / reach) if draft.tokens else []
        paid.foretold(stream, found)
        return draft.source if found else paid.name, draft.tokens, found
