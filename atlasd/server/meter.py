"""Counters over all requests since the daemon started; they outlive the engine process."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass, field

from atlasd.engine.protocol import StreamStats

KEPT_POINTS = 240


@dataclass(frozen=True, slots=True)
class Point:
    """One stream that has ended, as the dashboard draws it."""

    at: float
    tokens: int
    decode_ms: float
    steps: int
    drafted: int
    accepted: int
    foreseen: float
    draft_ms: float = 0.0

    @classmethod
    def of(cls, stats: StreamStats) -> Point:
        return cls(
            at=time.time(),
            tokens=stats.output_tokens,
            decode_ms=stats.decode_ms,
            steps=stats.steps,
            drafted=sum(stats.drafted.values()),
            accepted=sum(stats.accepted.values()),
            foreseen=stats.foreseen,
            draft_ms=stats.draft_ms,
        )


@dataclass
class Meter:
    """What the daemon has served. Times in seconds."""

    started: float = field(default_factory=time.time)
    """Unix time, by the clock of that moment; how long it is since tells ``up_s``."""
    up_since: float = field(default_factory=time.monotonic)
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By route and HTTP status."""
    in_flight: int = 0
    """Requests for text that are being answered."""
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefilled_tokens: int = 0
    output_tokens: int = 0
    steps: int = 0
    prefill_s: float = 0.0
    decode_s: float = 0.0
    queue_s: float = 0.0
    drafted: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    cancelled: int = 0
    engine_restarts: int = 0
    recent: dict[str, deque[Point]] = field(default_factory=dict)
    """The last streams of each repository, oldest first; of none under ``""``."""

    @property
    def up_s(self) -> float:
        """Seconds since the start, also where the clock was set meanwhile."""
        return time.monotonic() - self.up_since

    def add(
        self, stats: StreamStats, reason: str | None = None, repository: str | None = None
    ) -> None:
        """A stream has ended with ``reason``."""
        if stats.steps:
            points = self.recent.setdefault(repository or "", deque(maxlen=KEPT_POINTS))
            points.append(Point.of(stats))
        self.prompt_tokens += stats.prompt_tokens
        self.cached_tokens += stats.cached_tokens
        self.prefilled_tokens += stats.prefilled_tokens
        self.output_tokens += stats.output_tokens
        self.steps += stats.steps
        self.prefill_s += stats.prefill_ms / 1000
        self.decode_s += stats.decode_ms / 1000
        self.queue_s += stats.queue_ms / 1000
        self.drafted.update(stats.drafted)
        self.accepted.update(stats.accepted)
        self.cancelled += reason == "cancelled"

    def forget(self, repository: str | None) -> None:
        """Draw nothing more of a repository (None: of any); what was counted stays counted."""
        if repository is None:
            self.recent.clear()
        else:
            self.recent.pop(repository, None)
