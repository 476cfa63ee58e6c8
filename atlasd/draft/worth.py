"""Whether asking a drafter that costs time pays: what asking has brought against what it takes.

What counts is the accepted tokens of an ask, whatever became of it: one that proposed nothing, or
whose tokens were not used, brought none and was paid for all the same.
"""

from __future__ import annotations

from dataclasses import dataclass

PROBING = 0.005
"""Share of the time that asking a drafter with a poor record may take."""

_BETWEEN = 100
"""Steps between two such asks, at least."""

_OWN, _SHARED, _USUAL = 0.15, 0.05, 0.1
"""How quickly running means follow: of a stream, of all streams, of what is usual for a stream."""


@dataclass(slots=True)
class Record:
    """What asking has brought in one stream."""

    brought: float
    """Accepted tokens of an ask, a running mean."""
    asks: int = 0
    undecided: int = 0
    """Asks of the last step of which nothing was heard yet."""


class Worth:
    """The record of a drafter over all streams."""

    def __init__(self) -> None:
        self.brought = 1.0
        self.ask_ms = 0.0
        """Of an ask, what comes before its chain left out, a running mean; 0: never asked."""
        self._usual = 8.0
        """Asks of a stream that is asked at all: what reading its prompt is spread over."""
        self._saved_ms = 0.0
        self._steps = 0

    def begin(self) -> Record:
        """A stream starts with what is known of the others."""
        return Record(self.brought)

    def gain(
        self, record: Record, reach: float, tokens_per_ms: float, ask_ms: float, read_ms: float
    ) -> float:
        """Expected accepted tokens of asking now, less the tokens its time is worth; negative where
        asking does not pay, and infinite where it is tried all the same.

        ``reach``: probability that the draft so far is accepted; ``ask_ms``: of an ask while
        nothing is known of it; ``read_ms``: what has to be read before the chain.
        """
        brought, cost = self.terms(record, reach == 1.0, tokens_per_ms, ask_ms, read_ms)
        return reach * brought - cost

    def terms(
        self, record: Record, first: bool, tokens_per_ms: float, ask_ms: float, read_ms: float
    ) -> tuple[float, float]:
        """Of ``gain``: accepted tokens where nothing comes before them (infinite where asking is
        tried all the same), and the tokens that the time is worth. ``first``: of this step."""
        if first:
            if record.undecided:
                self._decide(record)
            self._steps += 1
            if tokens_per_ms > 0.0:
                self._saved_ms += PROBING / tokens_per_ms
        ask_ms = self.ask_ms or ask_ms
        if self._steps >= _BETWEEN and self._saved_ms >= ask_ms + read_ms:
            self._saved_ms, self._steps = 0.0, 0
            return float("inf"), 0.0
        cost = ask_ms + read_ms / max(1.0, self._usual - record.asks)
        return record.brought, cost * tokens_per_ms

    def asked(self, record: Record, spent_ms: float) -> None:
        """An ask took so long."""
        record.asks += 1
        record.undecided += 1
        self.ask_ms += (
            0.1 * (min(spent_ms, 2.0 * self.ask_ms) - self.ask_ms) if self.ask_ms else (spent_ms)
        )

    def heard(self, record: Record, accepted: int | None) -> None:
        """Of an ask's tokens so many were accepted; None: a draft before them was wrong."""
        if not record.undecided:
            return
        record.undecided -= 1
        if accepted is not None:
            record.brought += _OWN * (accepted - record.brought)
            self.brought += _SHARED * (accepted - self.brought)

    def end(self, record: Record) -> None:
        """The stream is over."""
        self._decide(record)
        if record.asks:
            self._usual += _USUAL * (record.asks - self._usual)

    def _decide(self, record: Record) -> None:
        """What nothing was heard of came to nothing."""
        while record.undecided:
            self.heard(record, 0)
