"""Whether asking a drafter that costs time pays: what an ask adds to what is known without it,
against what it takes.

What a chain is expected to bring is known as soon as it is there, from its calibrated confidence,
and of the two chains the better one is taken. So an ask adds E[max(0, N - T)]: N what the drafter
brings, spread like an exponential around its mean, T what the others are expected to bring here.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, inf

PROBING = 0.005
"""Share of the time that asking a drafter with a poor record may take."""

HOPED = 0.5
"""Tokens that an ask is expected to bring before any was made. Of the bundled model's small steps
the first asks, which find nothing prepared, cost two: with twice the hope streams of 24 tokens were
given up before their text had shown anything. Where steps are dear, half a token pays an ask."""

_BETWEEN = 100
"""Steps between two such asks, at least."""

_OWN, _SHARED, _USUAL = 0.15, 0.05, 0.1
"""How quickly running means follow: of a stream, of all streams, of what is usual for a stream."""


@dataclass(slots=True)
class Record:
    """What asking has brought in one stream."""

    brought: float
    """Expected accepted tokens of an ask, a running mean."""
    asks: int = 0


def added(brought: float, known: float) -> float:
    """Tokens that an ask which brings ``brought`` on average adds where others are expected to
    bring ``known``."""
    return brought if brought in (0.0, inf) else brought * exp(-known / brought)


class Worth:
    """The record of a drafter over all streams."""

    def __init__(self) -> None:
        self.brought = HOPED
        self.ask_ms = 0.0
        """Of an ask, what comes before its chain left out, a running mean; 0: never asked."""
        self._usual = 8.0
        """Asks of a stream that is asked at all: what reading its prompt is spread over."""
        self._saved_ms = 0.0
        self._steps = 0

    def begin(self) -> Record:
        """A stream starts with what is known of the others."""
        return Record(self.brought)

    def terms(
        self, record: Record, first: bool, tokens_per_ms: float, ask_ms: float, read_ms: float
    ) -> tuple[float, float]:
        """Accepted tokens that an ask brings where nothing comes before them (infinite where asking
        is tried in any case), and the tokens that its time is worth.

        ``first``: of this step; ``ask_ms``: of an ask while nothing is known of it; ``read_ms``:
        what has to be read before the chain.
        """
        if first:
            self.step(1, tokens_per_ms)
        if not self.ask_ms:
            self.ask_ms = ask_ms  # and not what the first ask takes, which finds nothing prepared
        if self._steps >= _BETWEEN and self._saved_ms >= self.ask_ms + read_ms:
            self._saved_ms, self._steps = 0.0, 0
            return inf, 0.0
        cost = self.ask_ms + read_ms / max(1.0, self._usual - record.asks)
        return record.brought, cost * tokens_per_ms

    def step(self, count: int, tokens_per_ms: float) -> None:
        """So many steps are planned, whether an ask is among them or not."""
        self._steps += count
        if tokens_per_ms > 0.0:
            self._saved_ms += count * PROBING / tokens_per_ms

    def asked(self, record: Record, spent_ms: float) -> None:
        """An ask took so long."""
        record.asks += 1
        self.ask_ms += 0.1 * (min(spent_ms, 2.0 * self.ask_ms) - self.ask_ms)

    def foretold(self, record: Record, expected: float) -> None:
        """An ask's chain is expected to bring so many tokens, whether they are used or not."""
        record.brought += _OWN * (expected - record.brought)
        self.brought += _SHARED * (expected - self.brought)

    def end(self, record: Record) -> None:
        """The stream is over."""
        if record.asks:
            self._usual += _USUAL * (record.asks - self._usual)
