"""How often the drafter says what the target chose, with a correction and without it."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from time import thread_time

import numpy as np

from atlasd.draft.adaptable import Adaptable
from atlasd.draft.cut import Costs
from atlasd.draft.drafter import Float32
from atlasd.draft.neural import Neural
from atlasd.learn.adapter import Adapter
from atlasd.learn.gate import Bools, Float64, play
from atlasd.learn.passages import Passage
from atlasd.learn.repository import Adapted
from atlasd.learn.versions import Version

UNIT_MS = 3.0
"""What a call of the drafter should take."""

KV_TOKENS = 512
"""Cached tokens of the step whose cost a passage is judged by."""


class Scorer:
    """Reads passages through the static drafter and scores versions by them."""

    def __init__(self, model: Adaptable, neural: Neural, costs: Costs) -> None:
        self._model = model
        self._neural = neural
        self._costs = costs
        self._chunk = 16
        self._static: Float32 | None = None
        self._heads: deque[tuple[Adapter, Float32]] = deque(maxlen=4)

    def states(self, passage: Passage) -> Generator[None, None, Float32]:
        """The static drafter's states of a passage's rows, computed anew in short calls."""
        parts = list[Float32]()
        end = passage.first + passage.rows
        chose = self._chose(passage)
        at = 0
        while at < end:
            count = min(self._chunk, end - at)
            began = thread_time()
            known = chose[at : at + count] if chose is not None else None
            parts.append(self._model.states(passage.tokens[at : at + count], at, known))
            per_row = max((thread_time() - began) * 1e3 / count, 1e-3)
            wanted = int(min(max(UNIT_MS / per_row, 1), 256))
            self._chunk = max(1, (3 * self._chunk + wanted + 3) // 4)
            at += count
            yield
        return np.concatenate(parts)[passage.first : end]

    def _chose(self, passage: Passage) -> Float32 | None:
        if passage.chosen is None or not self._model.carries:
            return None
        chose = np.zeros((passage.first + passage.rows, self._model.hidden), np.float32)
        chose[passage.first :] = passage.chosen.states()
        return chose

    def played(
        self, one: Adapted, passage: Passage, states: Float32, version: Version | None
    ) -> Float64:
        """``play`` of a version, or of the static drafter; where it hits is kept."""
        number, adapter = (version.number, version.adapter) if version else (0, None)
        known = one.hits.setdefault(passage, {})
        if number not in known:
            known[number] = self.agrees(passage, states, adapter)
        return self.play(known[number])

    def agrees(self, passage: Passage, states: Float32, adapter: Adapter | None) -> Bools:
        """Where the drafter's first choice is the target's, [rows]; ``adapter`` None: without."""
        if adapter is None:
            head = self._model.head
            if head is None:
                head = np.arange(self._model.vocab_size, dtype=np.int32)
            if self._static is None:
                self._static = np.ascontiguousarray(self._model.rows(head), np.float32)
            best = (states @ self._static.T).argmax(axis=1)
        else:
            head = adapter.head
            rows = self.head_rows(adapter)
            best = adapter.logits(states, *passage.read_by, rows).argmax(axis=1)
        agrees: Bools = head[best] == passage.top[:, 0]
        return agrees

    def head_rows(self, adapter: Adapter) -> Float32:
        """The drafter's rows of an adapter's head; those of the last few are kept."""
        for known, rows in self._heads:
            if known is adapter:
                return rows
        rows = np.ascontiguousarray(self._model.rows(adapter.head), np.float32)
        self._heads.append((adapter, rows))
        return rows

    def play(self, hits: Bools) -> Float64:
        """What a passage would have cost, by lookahead."""
        return play(hits, lambda rows: self._costs.ms(rows, KV_TOKENS), self._neural.token_ms)

    @property
    def nbytes(self) -> int:
        """Bytes of the heads that are kept."""
        kept = [rows for _, rows in self._heads]
        return sum(rows.nbytes for rows in (*kept, self._static) if rows is not None)

    def forget(self) -> None:
        """Let go of all heads' rows."""
        self._heads.clear()
        self._static = None
