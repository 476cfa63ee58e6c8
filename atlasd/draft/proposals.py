"""Proposals that wait for the verified text: drafters are scored on all they said, used or not."""

from __future__ import annotations

from dataclasses import dataclass, field

from atlasd.draft.confidence import Confidence, Scope
from atlasd.draft.drafter import Draft


@dataclass(slots=True)
class Proposal:
    """What a drafter said at some point, and how far the verified text has come."""

    draft: Draft
    previous: int
    """Token before the first proposed one."""
    after: list[int]
    """Drafted tokens it was to follow: it counts only where these are verified."""
    probabilities: list[float]
    at: int = 0
    """Of ``after`` and the draft together, the tokens verified so far."""
    learned: int = 0


@dataclass(slots=True)
class Tally:
    """A source's record: of what was drafted and of what was only proposed."""

    drafted: int = 0
    accepted: int = 0
    proposed: int = 0
    foreseen: int = 0


@dataclass(slots=True)
class OpenProposals:
    """The open proposals of one stream."""

    scope: Scope
    waiting: list[Proposal] = field(default_factory=list)

    def settle(self, tokens: list[int], confidence: Confidence, tallies: dict[str, Tally]) -> None:
        """Score all against the tokens that were verified; of each source the oldest that is still
        right stays open, so that long lookaheads are scored too."""
        kept: list[Proposal] = []
        sources: set[str] = set()
        for proposal in self.waiting:
            if self._advance(proposal, tokens, confidence, tallies):
                source = proposal.draft.source
                if source not in sources:
                    sources.add(source)
                    kept.append(proposal)
        self.waiting = kept

    def _advance(
        self,
        proposal: Proposal,
        tokens: list[int],
        confidence: Confidence,
        tallies: dict[str, Tally],
    ) -> bool:
        """True while the proposal is right and has more to say."""
        draft, lead = proposal.draft, len(proposal.after)
        at = proposal.at
        wrong = False
        for token in tokens:
            if at < lead:
                if proposal.after[at] != token:
                    return False
            elif at - lead >= len(proposal.probabilities):
                break
            elif draft.tokens[at - lead] != token:
                wrong = True
                break
            at += 1
        proposal.at = at
        right = at - lead
        if right < 0:
            return True
        first = proposal.learned
        if right + wrong > first:
            tally = tallies.setdefault(draft.source, Tally())
            tally.proposed += right + wrong - first
            tally.foreseen += right - first
            confidence.learn(
                draft.source,
                self.scope,
                draft.tokens[first - 1] if first else proposal.previous,
                draft.tokens[first:],
                draft.features[first:],
                right - first,
                wrong,
            )
            proposal.learned = right
        return not wrong and right < len(proposal.probabilities)
