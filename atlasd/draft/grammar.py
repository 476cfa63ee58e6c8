"""Drafts what a stream's constraint forces, and cuts other drafts to what it allows."""

from __future__ import annotations

from collections.abc import Sequence

from atlasd.draft.drafter import EMPTY, Draft, StreamView, VerifiedRows

CERTAIN = 0.999
_LONGEST = 64


class Grammar:
    """Keeps nothing: the constraint belongs to the stream, and the engine advances it."""

    name = "grammar"
    free = True

    def trim(self, stream: StreamView, tokens: Sequence[int]) -> int:
        """How many drafted tokens the stream's constraint allows."""
        return len(tokens) if stream.constraint is None else stream.constraint.valid(tokens)

    def begin(self, stream: StreamView) -> None:
        """Nothing to prepare."""

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        if stream.constraint is None:
            return EMPTY
        tokens = stream.constraint.forced(after)[: min(limit, _LONGEST)]
        if not tokens:
            return EMPTY
        return Draft(self.name, tokens, probabilities=[CERTAIN] * len(tokens))

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        """Nothing to learn."""

    def settle(self, draft: Draft, accepted: int) -> None:
        """Nothing to learn from what was certain."""

    def end(self, stream: StreamView) -> None:
        """Nothing was kept."""
