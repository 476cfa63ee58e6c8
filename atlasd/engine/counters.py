"""What the engine has done since it started: sums for /metrics and ``atlasd top``."""

from __future__ import annotations

from dataclasses import dataclass, field

from atlasd.engine.protocol import StreamStats


@dataclass
class Counters:
    """Monotone sums over ended streams and finished steps."""

    values: dict[str, float] = field(
        default_factory=lambda: dict.fromkeys(
            (
                *("requests", "stopped", "length", "cancelled", "errors"),
                *("prompt_tokens", "cached_tokens", "prefilled_tokens", "output_tokens"),
                *("steps", "rows", "prefill_calls", "preempted"),
                *("queue_seconds", "prefill_seconds", "decode_seconds", "draft_seconds"),
                *("forward_seconds", "drafted_tokens", "accepted_tokens"),
            ),
            0.0,
        )
    )
    sources: dict[str, dict[str, float]] = field(default_factory=dict)
    """By drafter: ``drafted`` and ``accepted`` tokens."""

    def add(self, name: str, amount: float = 1.0) -> None:
        self.values[name] += amount

    def end_of_stream(self, reason: str, stats: StreamStats) -> None:
        """Book a stream that has ended."""
        self.add("requests")
        self.add({"stop": "stopped", "error": "errors"}.get(reason, reason))
        self.add("prompt_tokens", stats.prompt_tokens)
        self.add("cached_tokens", stats.cached_tokens)
        self.add("prefilled_tokens", stats.prefilled_tokens)
        self.add("output_tokens", stats.output_tokens)
        self.add("queue_seconds", stats.queue_ms / 1e3)
        self.add("prefill_seconds", stats.prefill_ms / 1e3)
        self.add("decode_seconds", stats.decode_ms / 1e3)
        for source, drafted in stats.drafted.items():
            accepted = stats.accepted.get(source, 0)
            sums = self.sources.setdefault(source, {"drafted": 0.0, "accepted": 0.0})
            sums["drafted"] += drafted
            sums["accepted"] += accepted
            self.add("drafted_tokens", drafted)
            self.add("accepted_tokens", accepted)
