"""The versions of one repository's adapter: in use, last good, and what became of the others."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field

import msgspec

from atlasd.draft.lookahead import Chains
from atlasd.learn.adapter import Adapter

FORMAT = 1
KEPT_HISTORY = 24


class Key(msgspec.Struct, frozen=True):
    """What learned state belongs to. Another tokenizer or target makes rows worthless; another
    drafter makes weights worthless, not rows."""

    fingerprint: str
    target: str
    drafter: str


class Event(msgspec.Struct, frozen=True, array_like=True):
    """What happened to a version."""

    what: str
    """``promoted``, ``rolled back`` or ``reinstated``."""
    version: int
    at: float
    """Seconds since the epoch."""
    gain: float
    """Lower confidence bound of the share of time it saves (promoted), or 0."""


class Report(msgspec.Struct):
    """What the store keeps of a repository's versions (``Learned`` of kind ``adapter``)."""

    format: int
    key: Key
    live: int
    """The version in use; 0 is the static drafter."""
    good: int
    latest: int
    rows: int
    steps: int
    history: list[Event]


@dataclass
class Version:
    """A promoted adapter. ``corrected`` is the drafter with it, made when first needed."""

    number: int
    adapter: Adapter
    corrected: Chains | None = None


@dataclass
class Versions:
    """``live`` None is the static drafter. ``good`` is the one used before, kept to go back to."""

    live: Version | None = None
    good: Version | None = None
    latest: int = 0
    history: deque[Event] = field(default_factory=lambda: deque(maxlen=KEPT_HISTORY))

    def promote(self, adapter: Adapter, gain: float) -> Version:
        """Use this adapter from now on."""
        self.latest += 1
        self.good, self.live = self.live or self.good, Version(self.latest, adapter)
        self.history.append(Event("promoted", self.latest, time.time(), gain))
        return self.live

    def roll_back(self, to_good: bool) -> None:
        """Stop using the version in use: go back to the last good one, or to the static drafter.
        Then what was in use is kept instead, for when the text is of its kind again."""
        if self.live is not None:
            self.history.append(Event("rolled back", self.live.number, time.time(), 0.0))
        self.live, self.good = (self.good, None) if to_good else (None, self.live)

    def reinstate(self) -> None:
        """The last good version is good again."""
        assert self.good is not None
        self.live, self.good = self.good, None
        self.history.append(Event("reinstated", self.live.number, time.time(), 0.0))

    def report(self, key: Key, rows: int, steps: int) -> Report:
        """For the store."""
        return Report(
            FORMAT,
            key,
            self.live.number if self.live else 0,
            self.good.number if self.good else 0,
            self.latest,
            rows,
            steps,
            list(self.history),
        )

    def remember(self, report: Report) -> None:
        """Take over numbers and history of an earlier run, so that no number is given twice."""
        if report.latest > self.latest:
            self.latest = report.latest
            self.history.clear()
            self.history.extend(report.history)
