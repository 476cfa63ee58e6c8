"""A draft under assembly, of parts by several drafters."""

from __future__ import annotations

from atlasd.draft.drafter import Draft, Drafter


class Chain:
    """A draft under assembly: parts of several drafters, with the reach of each token."""

    __slots__ = ("confidence", "parts", "reach", "tokens")

    def __init__(self) -> None:
        self.parts: list[tuple[Drafter, Draft, int]] = []
        self.tokens: list[int] = []
        self.confidence: list[float] = []
        self.reach: list[float] = []

    def add(self, drafter: Drafter, draft: Draft, probabilities: list[float]) -> None:
        """Go on with as much of ``draft`` as has a probability."""
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

    def settle(self, verified: int, accepted: int) -> None:
        """Of the first ``verified`` tokens, which went to the target, ``accepted`` were right: tell
        each drafter about its part."""
        for drafter, draft, size in self.parts:
            size = min(size, verified)
            right = max(0, min(accepted, size))
            drafter.settle(draft, right)
            verified -= size
            accepted -= size
            if verified <= 0:
                break
