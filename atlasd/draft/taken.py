"""What became of several steps that streams took together (``engine.multistep``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class TakenStep(NamedTuple):
    """One that was planned, in the order of ``TakenStep`` in multistep.h."""

    rows: int
    record_bytes: int
    planning_ms: float
    """Planning and learning."""
    forward_ms: float


class TakenShare(NamedTuple):
    """One stream's share of it, in the order of ``TakenShare`` in multistep.h."""

    drafted: int
    accepted: int
    verified: int
    foreseen: float


@dataclass(slots=True)
class TakenStream:
    """What became of one stream."""

    tokens: list[int]
    """Verified, step by step."""
    fed: int
    """Positions of its slot that hold its tokens."""
    reason: str
    """Why its output ended; "": it goes on."""
    damaged: bool = False
    """Whether the model produced what is no number."""
    each: list[TakenShare] = field(default_factory=list)
    """Its shares of the planned steps, if it was drafted for: drafters know what these verified,
    and no more."""
    drafted: dict[str, int] = field(default_factory=dict)
    """By source, like the two that follow."""
    decided: dict[str, int] = field(default_factory=dict)
    """Of those drafted, the ones before the output's end."""
    accepted: dict[str, int] = field(default_factory=dict)
    credits: Sequence[tuple[int, int]] = ()
    """(segment, accepted tokens)"""
    unwritten: int = 0
    """Of the tokens told the last, for which the stream's tail had no room."""
    best: list[int] | None = None
    """The target's first choices at the last planned step's rows, where they are to be learned."""

    def told(self) -> list[int]:
        """The tokens that planned steps verified."""
        return self.tokens[: sum([one.verified for one in self.each])]


@dataclass(slots=True)
class TakenSteps:
    """All of them."""

    each: list[TakenStep]
    """Those that were planned, the first ones."""
    plain: int
    """So many followed that were not."""
    plain_ms: float
    """What their rows took."""
    streams: list[TakenStream]
    records: bytes = b""
    """Of the plans; see ``packed``."""
    wanting: int = -1
    """Of the streams that are drafted for, the one for which a drafter is wanted next that native
    steps cannot ask; -1: none."""

    @property
    def steps(self) -> int:
        """How many there were."""
        return len(self.each) + self.plain
