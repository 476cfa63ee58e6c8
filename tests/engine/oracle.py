"""Drafting from the true continuation, corrupted at random: every depth of rejection happens."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from atlasd.draft.cut import NO_OTHERS, Others
from atlasd.draft.drafter import EMPTY, Draft, StreamView, VerifiedRows
from atlasd.draft.plan import Plan, StepRecord


class OracleController:
    """Proposes ``truth[stream]`` with a wrong token at a random depth. Has the interface of
    ``draft.controller.Controller``."""

    def __init__(
        self,
        truth: dict[int, list[int]],
        vocab_size: int,
        seed: int,
        *,
        longest: int = 15,
        right: float = 0.3,
    ) -> None:
        self.truth = truth
        self.rejected_at: Counter[int] = Counter()
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.observed: dict[int, list[int]] = {}
        self._vocab_size = vocab_size
        self._random = random.Random(seed)
        self._longest = longest
        self._right = right

    def take_beside(self, milliseconds: float) -> None:
        """Its drafts do not depend on what they cost."""

    def prepare(self, stream: StreamView, room: int) -> None:
        """It drafts for one step at a time."""

    def begin(self, stream: StreamView) -> None:
        self.begun.append(stream.stream)
        self.observed[stream.stream] = list(stream.tokens)

    def plan(
        self,
        streams: Sequence[StreamView],
        room: int,
        limits: Sequence[int] | None = None,
        others: Others = NO_OTHERS,
    ) -> Plan:
        drafts = []
        for index, stream in enumerate(streams):
            limit = min(room, limits[index] if limits is not None else room)
            drafts.append(self._draft(stream, limit))
            room -= len(drafts[-1].tokens)
        lookahead = [len(draft.tokens) for draft in drafts]
        record = StepRecord([s.stream for s in streams], [], [], lookahead, [])
        return Plan(drafts, record)

    def _draft(self, stream: StreamView, limit: int) -> Draft:
        done = len(stream.tokens) - stream.prompt_length
        tokens = self.truth.get(stream.stream, [])[done : done + min(limit, self._longest)]
        if not tokens:
            return EMPTY
        if self._random.random() < self._right:
            return Draft("oracle", tokens[: self._random.randint(0, len(tokens))])
        at = self._random.randrange(len(tokens))
        wrong = 1 + self._random.randrange(self._vocab_size - 1)
        tokens[at] = (tokens[at] + wrong) % self._vocab_size
        del tokens[self._random.randint(at + 1, len(tokens)) :]
        return Draft("oracle", tokens)

    def settle(
        self,
        stream: StreamView,
        draft: Draft,
        accepted: int,
        tokens: list[int],
        rows: VerifiedRows | None,
        step_ms: float,
    ) -> None:
        assert stream.tokens[-len(tokens) :] == tokens
        assert tokens[:accepted] == draft.tokens[:accepted]
        self.observed[stream.stream] += tokens
        if accepted < len(draft.tokens):
            self.rejected_at[accepted + 1] += 1
        if rows is not None:
            assert len(rows.after) == len(rows.top) == len(rows.top_logprobs)

    def end(self, stream: StreamView) -> None:
        assert self.observed[stream.stream] == stream.tokens
        self.ended.append(stream.stream)
