"""What became of several steps that streams took together (``engine.multistep``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple


class TakenStep(NamedTuple):
    """One of all streams, in the order of ``TakenStep`` in multistep.h."""

    rows: int
    record_bytes: int
    """Of its plan; 0: it was plain."""
    planning_ms: float
    """Planning and learning."""
    forward_ms: float


class TakenShare(NamedTuple):
    """One stream's share of it, in the order of ``TakenShare`` in multistep.h."""

    planned: int
    """0: drafting rested."""
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
    """Its shares of the steps, if it was drafted for."""
    told: int = 0
    """So many of the tokens drafters know."""
    wait: int = 0
    """Steps for which drafting rests on."""
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


@dataclass(slots=True)
class TakenSteps:
    """All of them."""

    steps: int
    each: list[TakenStep]
    """None where nobody was drafted for."""
    plain_ms: float
    """What the rows of plain ones took."""
    streams: list[TakenStream]
    records: bytes = b""
    """Of the plans; see ``packed``."""
    wanting: int = -1
    """Of the streams that do not rest then, the one for which a drafter is wanted next that native
    steps cannot ask; -1: none."""
