"""What became of proposals: confidence learns from all of them, tallies count those drafted."""

from __future__ import annotations

from atlasd.draft.confidence import Confidence
from atlasd.draft.drafter import Draft, StreamView
from atlasd.draft.proposals import OpenProposals, Proposal, Tally


class Scored:
    """Proposals of running streams, until the verified text tells who was right."""

    def __init__(self, confidence: Confidence) -> None:
        self.confidence = confidence
        self.tallies: dict[str, Tally] = {}
        self._open: dict[int, OpenProposals] = {}

    def _opened(self, stream: StreamView) -> None:
        """A stream starts."""
        scope = self.confidence.scope(stream.repository, stream.language)
        self._open[stream.stream] = OpenProposals(scope)

    def _predict(
        self, stream: StreamView, after: list[int], draft: Draft, least: float
    ) -> list[float]:
        """Confidence in a draft behind ``after``, which it is scored on once that is decided."""
        opened = self._open[stream.stream]
        previous = after[-1] if after else stream.tokens[-1]
        probabilities = self.confidence.predict(
            draft.source, opened.scope, previous, draft.tokens, draft.features, least
        )
        opened.waiting.append(Proposal(draft, previous, after, probabilities))
        return probabilities

    def _verify_open(self, stream: StreamView, tokens: list[int]) -> None:
        opened = self._open[stream.stream]
        if not stream.learn:
            opened.waiting.clear()
        elif opened.waiting:
            opened.settle(tokens, self.confidence, self.tallies)

    def _tally(self, source: str, drafted: int, accepted: int) -> None:
        tally = self.tallies.get(source)
        if tally is None:
            tally = self.tallies[source] = Tally()
        tally.drafted += drafted
        tally.accepted += accepted

    def _count(self, draft: Draft, accepted: int) -> None:
        left = len(draft.tokens)
        for source, count in draft.parts or ((draft.source, left),):
            count = min(count, left)
            self._tally(source, count, max(0, min(accepted, count)))
            left -= count
            accepted -= count
            if left <= 0:
                break
