"""The rows of one decoding step: per stream its pending tokens, then its draft."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from atlasd.draft.drafter import EMPTY, Draft
from atlasd.engine.slots import Int32
from atlasd.engine.streams import Stream

if TYPE_CHECKING:
    from atlasd.draft.constraint import Bool


@dataclass(eq=False, slots=True)
class Part:
    """What one stream contributes to a step."""

    stream: Stream
    draft: Draft
    pending: int
    """Known tokens fed in this step; the last one's row gives the next token."""
    logits: int
    """Rows whose logits are wanted: the last pending one and those of the draft, or none while a
    stream that lost its slot catches up."""
    planned: bool = False
    """Drafters know of the stream and are told what becomes of this step."""
    foreseen: Callable[[int], float] | None = None
    """How many of the draft's first tokens, so many, are expected to be accepted."""
    allowed: Future[Bool] | None = None
    """What the stream's constraint allows at the rows whose logits are wanted."""

    @classmethod
    def plain(cls, stream: Stream, most: int) -> Part:
        """The stream's share of a step without a draft, at most ``most`` rows."""
        pending = stream.pending
        return cls(stream, EMPTY, min(pending, most), int(pending <= most))

    @property
    def rows(self) -> int:
        return self.pending + len(self.draft.tokens)

    def give(self, draft: Draft) -> None:
        """Verify this draft in the step."""
        self.draft = draft
        self.logits = 1 + len(draft.tokens)


@dataclass(eq=False, slots=True)
class Batch:
    """The parts of a step, most urgent stream first."""

    parts: list[Part]

    @property
    def rows(self) -> int:
        if len(self.parts) == 1:
            return self.parts[0].rows
        return sum(part.rows for part in self.parts)

    @property
    def kv_tokens(self) -> int:
        """Positions that the rows' streams hold together."""
        if len(self.parts) == 1:
            return self.parts[0].stream.fed + self.parts[0].rows
        return sum(part.stream.fed + part.rows for part in self.parts)

    def arrays(self) -> tuple[Int32, Int32, Int32, Int32]:
        """tokens [R], slots [R], positions [R] and the indices of the rows that need logits."""
        tokens: list[int] = []
        slots: list[int] = []
        positions: list[int] = []
        wanted: list[int] = []
        for part in self.parts:
            stream, fed = part.stream, part.stream.fed
            tokens += stream.view.tokens[fed : fed + part.pending]
            tokens += part.draft.tokens
            slots += [stream.slot] * part.rows
            positions += range(fed, fed + part.rows)
            if part.logits:
                wanted += range(len(tokens) - part.logits, len(tokens))
        return (
            np.array(tokens, dtype=np.int32),
            np.array(slots, dtype=np.int32),
            np.array(positions, dtype=np.int32),
            np.array(wanted, dtype=np.int32),
        )
