"""What the controller decided for one step, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from atlasd.draft.drafter import Draft


@dataclass(slots=True)
class Candidate:
    """A chain that was considered for a stream: who proposed it and how likely it is to hold."""

    source: str
    tokens: list[int]
    confidence: list[float]
    """Per token, the probability that it is accepted given that all before it were."""

    def expected(self) -> float:
        """Expected accepted tokens of the whole chain."""
        total, reach = 0.0, 1.0
        for probability in self.confidence:
            reach *= probability
            total += reach
        return total


class Chosen(Protocol):
    """A chain assembled from candidates."""

    tokens: list[int]
    confidence: list[float]

    @property
    def source(self) -> str:
        """Who proposed its parts."""
        ...


@dataclass(slots=True)
class StepRecord:
    """The facts of a decision; rendered only when somebody asks (``atlasd why``)."""

    streams: list[int]
    candidates: list[list[Candidate]]
    """Per stream, the chains considered."""
    chosen: Sequence[Chosen]
    """Per stream, the assembled chain before the cut."""
    lookahead: list[int]
    """Per stream, where the cut fell."""
    costs: list[tuple[int, float, float]]
    """(drafted rows, expected tokens, milliseconds) of the alternatives compared; the first is
    plain decoding."""
    drafting_ms: float = 0.0

    def foreseen(self, at: int, count: int) -> float:
        """How many of the first ``count`` tokens of the ``at``-th stream's chain are expected to
        be accepted."""
        total, reach = 0.0, 1.0
        for probability in self.chosen[at].confidence[:count] if self.chosen else ():
            reach *= probability
            total += reach
        return total

    def explain(self, stream: int) -> dict[str, object]:
        """The decision about one stream as a JSON-ready dictionary."""
        at = self.streams.index(stream)
        chosen = self.chosen[at]
        best = max(self.costs, key=lambda row: row[1] / row[2]) if self.costs else None
        return {
            "candidates": [
                {
                    "source": candidate.source,
                    "tokens": candidate.tokens,
                    "confidence": [round(p, 4) for p in candidate.confidence],
                    "expected": round(candidate.expected(), 3),
                }
                for candidate in self.candidates[at]
            ],
            "chosen": {
                "source": chosen.source,
                "tokens": chosen.tokens[: self.lookahead[at]],
                "confidence": [round(p, 4) for p in chosen.confidence],
            },
            "lookahead": self.lookahead[at],
            "costs": [
                {"rows": rows, "expected": round(expected, 3), "ms": round(ms, 4)}
                for rows, expected, ms in self.costs
            ],
            "reason": reason(chosen, self.lookahead[at], best),
            "drafting_ms": round(self.drafting_ms, 4),
        }


def reason(chosen: Chosen, lookahead: int, best: tuple[int, float, float] | None) -> str:
    """Why the cut fell where it did, in a sentence."""
    if not chosen.tokens:
        return "no drafter had a proposal"
    if best is None or lookahead == 0:
        return f"plain decoding is faster than verifying what {chosen.source} proposed"
    rate = best[1] / best[2] * 1000
    if lookahead == len(chosen.tokens):
        return f"the whole chain pays: {rate:.0f} tokens/s expected"
    return f"one token more would lower the {rate:.0f} tokens/s expected"


class Record(Protocol):
    """Why a step was planned as it was."""

    def foreseen(self, at: int, count: int) -> float:
        """How many of the first ``count`` tokens of the ``at``-th stream's draft are expected to be
        accepted."""
        ...

    def explain(self, stream: int) -> dict[str, object]:
        """The decision about one stream as a JSON-ready dictionary."""
        ...


@dataclass(slots=True)
class Plan:
    """Drafts for one step, parallel to the streams that were planned; empty drafts are plain."""

    drafts: list[Draft]
    record: Record = field(repr=False)
