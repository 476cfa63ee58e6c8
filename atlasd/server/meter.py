"""Counters over all requests since the daemon started; they outlive the engine process."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from atlasd.engine.protocol import StreamStats

if TYPE_CHECKING:
    from atlasd.completion.request import Completion


@dataclass
class Meter:
    """What the daemon has served. Times in seconds."""

    started: float = field(default_factory=time.time)
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By route and HTTP status."""
    in_flight: int = 0
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

    def add(self, stats: StreamStats, reason: str | None = None) -> None:
        """A stream has ended with ``reason``."""
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

    def add_completions(self, found: Iterable[Completion]) -> None:
        """Suggestions were given; those from the type-through cache cost no stream."""
        for one in found:
            if one.source != "type-through":
                self.add(one.stats)
