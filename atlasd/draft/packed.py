"""The record of a step as the native planner leaves it: bytes, read only when somebody asks."""

from __future__ import annotations

from collections.abc import Sequence
from struct import unpack_from

from atlasd.draft.plan import Candidate, StepRecord


class _Chosen:
    """A chain: the candidates that were taken, one behind the other."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.confidence: list[float] = []
        self.sources: list[str] = []

    @property
    def source(self) -> str:
        return " + ".join(dict.fromkeys(self.sources)) or "none"


class PackedStep:
    """As ``StepRecord``, unpacked by ``explain``.

    Its bytes (see ``write_record`` in plan.cpp): int32 streams and alternatives; per alternative
    rows, expected tokens and milliseconds as float64; per stream int32 number, lookahead and
    candidates, and per candidate int32 source, taken and count, int32 tokens, float64 confidence.
    """

    __slots__ = ("_names", "_raw", "_spent_ms", "_whole")

    def __init__(
        self,
        raw: bytes,
        names: Sequence[str],
        spent_ms: float,
        whole: Sequence[tuple[int, float]] = (),
    ) -> None:
        """``whole``: of each stream the tokens of its draft, and how many of them are expected to
        be accepted; as the bytes have it, and quicker to read."""
        self._raw = raw
        self._names = names
        self._spent_ms = spent_ms
        self._whole = whole

    def foreseen(self, at: int, count: int) -> float:
        """How many of the first ``count`` tokens of the ``at``-th stream's draft are expected to be
        accepted."""
        if self._whole and self._whole[at][0] == count:
            return self._whole[at][1]
        return self.unpack().foreseen(at, count)

    def explain(self, stream: int) -> dict[str, object]:
        """The decision about one stream as a JSON-ready dictionary."""
        return self.unpack().explain(stream)

    def unpack(self) -> StepRecord:
        """The same as a ``StepRecord``."""
        raw = self._raw
        streams, alternatives = unpack_from("=2i", raw)
        at = 8
        record = StepRecord([], [], [], [], [], self._spent_ms)
        chosen: list[_Chosen] = []
        for _ in range(alternatives):
            rows, expected, milliseconds = unpack_from("=3d", raw, at)
            record.costs.append((int(rows), expected, milliseconds))
            at += 24
        for _ in range(streams):
            number, lookahead, candidates = unpack_from("=3i", raw, at)
            at += 12
            record.streams.append(number)
            record.lookahead.append(lookahead)
            considered: list[Candidate] = []
            chain = _Chosen()
            for _ in range(candidates):
                source, taken, count = unpack_from("=3i", raw, at)
                at += 12
                tokens = list(unpack_from(f"={count}i", raw, at))
                at += 4 * count
                confidence = list(unpack_from(f"={count}d", raw, at))
                at += 8 * count
                considered.append(Candidate(self._names[source], tokens, confidence))
                if taken:
                    chain.tokens += tokens
                    chain.confidence += confidence
                    chain.sources.append(self._names[source])
            record.candidates.append(considered)
            chosen.append(chain)
        record.chosen = chosen
        return record
