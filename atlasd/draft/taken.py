"""What became of several steps of one stream that were taken together (``engine.multistep``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class TakenStep(NamedTuple):
    """One of them, in the order of ``TakenStep`` in multistep.h."""

    rows: int
    drafted: int
    accepted: int
    verified: int
    record_bytes: int
    foreseen: float
    planning_ms: float
    """Planning and learning; 0 where nothing was planned."""
    forward_ms: float


@dataclass(slots=True)
class TakenSteps:
    """All of them."""

    each: list[TakenStep]
    """Those that were planned, the first ones: drafters know what these verified, and no more."""
    plain: int
    """So many followed that were not."""
    plain_ms: float
    """What their rows took."""
    tokens: list[int]
    """Verified, step by step."""
    drafted: dict[str, int] = field(default_factory=dict)
    """By source, like the two that follow."""
    decided: dict[str, int] = field(default_factory=dict)
    """Of those drafted, the ones before the output's end."""
    accepted: dict[str, int] = field(default_factory=dict)
    records: bytes = b""
    """Of the plans; see ``packed``."""
    credits: Sequence[tuple[int, int]] = ()
    """(segment, accepted tokens)"""
    unwritten: int = 0
    """Of the tokens told the last, for which the stream's tail had no room."""
    best: list[int] | None = None
    """The target's first choices at the last planned step's rows, where they are to be learned."""

    @property
    def steps(self) -> int:
        """How many there were."""
        return len(self.each) + self.plain

    def told(self) -> list[int]:
        """The tokens that planned steps verified."""
        return self.tokens[: sum([one.verified for one in self.each])]
