"""The static drafter: a small model with the target's tokenizer, drafting in chains.

It has a small KV cache of its own: a slot per stream, over the last few hundred tokens. Where the
target samples, it chooses with the target's noise at the same output index, and so agrees more
often. A model that carries states begins with the target's, the one that chose the last verified
token (EAGLE, Li et al. 2024). Where a repository has an adapter, chains are drafted with its
correction. Drafting costs time, so it is asked only where its expected tokens are worth more than
that time (``gain``); what it costs is measured as it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import log
from time import perf_counter

import numpy as np
from atlasd_kernels.noise import gumbel_row

from atlasd.draft.asktime import AskTime
from atlasd.draft.drafter import EMPTY, Draft, Float32, StreamView, VerifiedRows
from atlasd.draft.lookahead import ChainModel, Chains, Lookahead, Noise
from atlasd.draft.worth import Record, Worth, added

ADAPTER = "adapter"
"""Source of the tokens that were drafted with an adapter's correction."""

_TOGETHER = 32
"""Tokens that are read in one call with the chain; what comes before them is read ahead of it."""

CONTEXT = 384
"""Tokens of a stream that a drafter reads."""

_LONGEST = 16
_FIRST_ASK = 4
"""Tokens of an ask in length of time, before any was timed."""


@dataclass(slots=True)
class _State:
    record: Record
    slot: int = -1
    offset: int = 0
    """Index in the stream of the slot's first position."""
    written: list[int] = field(default_factory=list)
    """Tokens whose keys and values are in the slot."""
    good: int = 0
    """So many of them are known to be the stream's."""
    used: int = 0


class Neural:
    """Chains of a ``ChainModel``. Features of a token: the model's probability of it; the product
    of its probabilities so far; depth."""

    name = "neural"
    free = False

    def __init__(
        self,
        model: ChainModel,
        now: Callable[[], float] = perf_counter,
        context: int = CONTEXT,
    ) -> None:
        """``now``: seconds on the clock its cost is measured by; ``context``: tokens of a stream
        that it reads."""
        self.model = model
        self._context = context
        self._now = now
        self.least = 0.05
        """A chain ends where its own reach falls below this; set by whoever asks."""
        self.asking = AskTime(1.0)
        self.read_ms = 0.05
        self.worth = Worth()
        self.correction_of: Callable[[str | None], Chains | None] = lambda repository: None
        """The adapter in use for a repository, if it has one (``learn.learner``)."""
        self._streams: dict[int, _State] = {}
        self._owners: dict[int, int] = {}
        self._clock = 0
        self._ahead_ms = 0.0
        self._asked: tuple[float, float] | None = None
        """When the ask began that ``foretold`` has not heard of, and what reading took of it."""

    @property
    def token_ms(self) -> float:
        """Milliseconds that a chain takes for one token more."""
        return self.asking.token_ms

    @token_ms.setter
    def token_ms(self, milliseconds: float) -> None:
        self.asking = AskTime(milliseconds)

    def measure(self) -> None:
        """Time the model before any stream asks; what slot 0 holds is lost."""
        count = min(64, self.model.slot_tokens // 2)
        text = np.arange(1, count + 1, dtype=np.int32)
        for _ in range(2):  # the first is slower than those that follow
            started = self._now()
            self.model.read(text, 0, 0)
            read = self._now()
            self.model.chain(Lookahead([1], -1, 0, count, 8, 0.0, Noise(0.0, 0, 0, 0)))
            self.token_ms = (self._now() - read) * 1e3 / 8
            self.read_ms = (read - started) * 1e3 / count

    def begin(self, stream: StreamView) -> None:
        self._streams[stream.stream] = _State(self.worth.begin())

    def gain(
        self, stream: StreamView, reach: float, tokens_per_ms: float, known: float = 0.0
    ) -> float:
        """Tokens that asking now is expected to add, less those its time is worth, behind a chain
        of this ``reach`` where others are expected to bring ``known`` (``Worth``)."""
        brought, cost = self.terms(stream, reach == 1.0, tokens_per_ms)
        return reach * added(brought, known) - cost

    def aim(self, reach: float, tokens_per_ms: float) -> None:
        """End the next chain where its next token would cost more than it brings."""
        self.least = max(0.02, min(0.9, self.asking.token_ms * tokens_per_ms / reach))

    def terms(self, stream: StreamView, first: bool, tokens_per_ms: float) -> tuple[float, float]:
        """The two terms of ``gain`` where nothing was drafted yet (``Worth.terms``)."""
        state = self._streams[stream.stream]
        behind = min(len(stream.tokens) - state.offset - state.good, self._context)
        ask_ms, read_ms = self.asking.of(_FIRST_ASK), behind * self.read_ms
        return self.worth.terms(state.record, first, tokens_per_ms, ask_ms, read_ms)

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        state, asked = self._streams[stream.stream], self._now()
        limit = min(limit, _LONGEST)
        total = len(stream.tokens) + len(after)
        if limit <= 0 or not total:
            return EMPTY
        self._place(stream, state, total, limit)
        text = stream.since(state.offset) + after
        begin = self._read(state, text)
        corrected = self.correction_of(stream.repository) if len(text) > 1 else None
        states = stream.states if self.model.carries and not after else None
        ask = Lookahead(
            text[begin:],
            text[-2] if len(text) > 1 else -1,
            state.slot,
            begin,
            limit,
            self.least,
            Noise(stream.temperature, stream.seed, stream.choice, total - stream.prompt_length),
            None if states is None else states.of(total - 1, total),
        )
        started, in_chain = self._now(), self.read_ms * (len(ask.tokens) - 1)
        tokens, probabilities = (corrected or self.model).chain(ask)
        spent = (self._now() - started) * 1e3 - in_chain
        self.asking.observe(len(tokens) + 1, max(spent, 0.0))
        self._asked = asked, in_chain + self._ahead_ms
        state.written = text + tokens[:-1]
        state.good = len(stream.tokens) - state.offset
        name = self.name if corrected is None else ADAPTER
        return Draft(name, tokens, _levels(probabilities)) if tokens else EMPTY

    def _read(self, state: _State, text: list[int]) -> int:
        """Read all of a slot's text but the last few tokens; returns where these begin."""
        begin = min(state.good, len(text) - 1)
        while begin < min(len(state.written), len(text) - 1) and (
            state.written[begin] == text[begin]
        ):
            begin += 1
        ahead = text[begin:-_TOGETHER]
        self._ahead_ms = 0.0
        if ahead:
            started = self._now()
            self.model.read(np.array(ahead, np.int32), state.slot, begin)
            self._ahead_ms = (self._now() - started) * 1e3
            self.read_ms = _steady(self.read_ms, self._ahead_ms / len(ahead))
        return begin + len(ahead)

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        """Nothing to learn: the drafter is static."""

    def settle(self, draft: Draft, accepted: int) -> None:
        """Nothing: the record goes by what was foreseen (``foretold``)."""

    def foretold(self, stream: StreamView, confidence: list[float]) -> None:
        """The confidence in the tokens just proposed: what the ask has brought. What it took is
        all that was done since it began, not the chain alone."""
        record = self._streams[stream.stream].record
        expected, reach = 0.0, 1.0
        for probability in confidence:
            reach *= probability
            expected += reach
        self.worth.foretold(record, expected)
        if self._asked is not None:
            (began, read_ms), self._asked = self._asked, None
            self.worth.asked(record, max((self._now() - began) * 1e3 - read_ms, 0.0))

    def end(self, stream: StreamView) -> None:
        state = self._streams.pop(stream.stream)
        self.worth.end(state.record)
        self._owners.pop(state.slot, None)

    def _place(self, stream: StreamView, state: _State, total: int, limit: int) -> None:
        """Give the stream a slot with room for ``limit`` more tokens."""
        self._clock += 1
        state.used = self._clock
        if state.slot < 0 or self._owners.get(state.slot) != stream.stream:
            state.slot = self._free_slot()
            self._owners[state.slot] = stream.stream
            self._restart(state, total)
        if total - state.offset + limit > self.model.slot_tokens:
            self._restart(state, total)

    def _restart(self, state: _State, total: int) -> None:
        state.written, state.good = [], 0
        state.offset = max(0, total - min(self._context, self.model.slot_tokens // 2))

    def _free_slot(self) -> int:
        for slot in range(self.model.slots):
            if slot not in self._owners:
                return slot
        oldest = min(self._owners, key=lambda slot: self._streams[self._owners[slot]].used)
        self._streams[self._owners[oldest]].slot = -1
        return oldest


def _steady(mean: float, spent: float) -> float:
    """A running mean that one interrupted call does not upset."""
    return mean + 0.1 * (min(spent, 2.0 * mean) - mean)


def _levels(probabilities: list[float]) -> list[tuple[int, ...]]:
    product = 1.0
    features: list[tuple[int, ...]] = []
    for depth, probability in enumerate(probabilities):
        product *= probability
        level = _level(probability)
        features.append((level, _level(product), min(depth, 7) * 32 + level))
    return features


def _level(probability: float) -> int:
    """Log odds in 32 buckets."""
    odds = log(max(probability, 1e-6) / (1.0 - min(probability, 1.0 - 1e-6)))
    return min(31, max(0, int(2.5 * odds + 12.0)))


def choose(logits: Float32, noise: Noise, index: int) -> int:
    """The token of a row of logits [vocab]: argmax, or with the target's noise at ``index`` tokens
    behind the chain's first."""
    if noise.temperature == 0.0:
        return int(logits.argmax())
    gumbel = gumbel_row(noise.seed, noise.choice, noise.output_index + index, len(logits))
    return int((logits / np.float32(noise.temperature) + gumbel).argmax())
