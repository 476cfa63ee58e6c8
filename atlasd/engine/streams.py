"""One stream inside the engine: what it wants, how far it is, what it has cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from time import perf_counter

import numpy as np

from atlasd.draft.drafter import StreamView
from atlasd.engine.framing import unpack_tokens
from atlasd.engine.protocol import Priority, StreamStats, Submit
from atlasd.engine.sampling import ChooseRow, Sampler, choose_row
from atlasd.engine.slots import Int32
from atlasd.errors import RequestError


class Phase(Enum):
    """Where a stream is."""

    QUEUED = "queued"
    PREFILL = "prefill"
    DECODE = "decode"
    ENDED = "ended"


@dataclass(eq=False)
class Stream:
    """The state of one request. ``view`` is the part of it that drafters see."""

    number: int
    view: StreamView
    sampler: Sampler
    stops: frozenset[int]
    max_tokens: int
    priority: Priority
    logprobs: int
    drafting: bool
    arrival: int
    slot: int = -1
    fed: int = 0
    """Positions [0, fed) of the slot hold the stream's tokens."""
    prefill_end: int = 0
    """Prefill covers positions up to here; what follows is fed by decoding."""
    phase: Phase = Phase.QUEUED
    stats: StreamStats = field(default_factory=StreamStats)
    waits_since: float = field(default_factory=perf_counter)
    begun: bool = False
    """Drafters have been told of it."""

    @property
    def tokens(self) -> list[int]:
        """Prompt and verified output."""
        return self.view.tokens

    @property
    def pending(self) -> int:
        """Tokens that are known but not yet in the slot; at least one while decoding."""
        return len(self.view.tokens) - self.fed

    @property
    def order(self) -> tuple[int, int]:
        """Streams are served in this order."""
        return self.priority, self.arrival

    def enter(self, phase: Phase) -> None:
        """Go on to the next phase; the time spent is booked to the one that ends."""
        now = perf_counter()
        spent, self.waits_since = (now - self.waits_since) * 1e3, now
        match self.phase:
            case Phase.QUEUED:
                self.stats.queue_ms += spent
            case Phase.PREFILL:
                self.stats.prefill_ms += spent
            case Phase.DECODE:
                self.stats.decode_ms += spent
        self.phase = phase

    def prefix(self, length: int | None = None) -> Int32:
        """Its first ``length`` tokens (all of them) as an array."""
        return np.array(self.view.tokens[:length], dtype=np.int32)

    @property
    def draft_limit(self) -> int:
        """The longest draft that can still be of use: a step gives one token more than it."""
        return self.max_tokens - self.stats.output_tokens - 1

    def take(self, chosen: list[int]) -> tuple[list[int], str]:
        """Cut the target's tokens at the stream's end: (tokens that count, reason or "")."""
        left = self.max_tokens - self.stats.output_tokens
        for index, token in enumerate(chosen[:left]):
            if token in self.stops:
                return chosen[:index], "stop"
        return chosen[:left], "length" if len(chosen) >= left else ""


def new_stream(
    submit: Submit,
    arrival: int,
    *,
    vocab_size: int,
    slot_tokens: int,
    choose: ChooseRow = choose_row,
) -> Stream:
    """Check a request and make its stream. Raises RequestError if it cannot be served."""
    prompt = unpack_tokens(submit.tokens)
    if not prompt:
        raise RequestError("The prompt is empty.", "Send at least one token.")
    if len(prompt) > slot_tokens:
        raise RequestError(
            f"The prompt has {len(prompt)} tokens and the model's window holds {slot_tokens}.",
            "Send less context.",
        )
    if min(prompt) < 0 or max(prompt) >= vocab_size:
        raise RequestError(
            "The prompt has a token that the model does not know.",
            "It was made with another tokenizer.",
        )
    if submit.max_tokens < 1:
        raise RequestError("max_tokens is out of range.", "Ask for at least one token.")
    sampling = submit.sampling
    view = StreamView(
        stream=submit.stream,
        tokens=prompt,
        prompt_length=len(prompt),
        repository=submit.repository,
        language=submit.language,
        prediction=np.frombuffer(submit.prediction, "<i4") if submit.prediction else None,
        learn=submit.learn,
        temperature=sampling.temperature,
        seed=sampling.seed,
        choice=sampling.choice,
    )
    return Stream(
        number=submit.stream,
        view=view,
        sampler=Sampler(sampling, prompt, vocab_size, choose),
        stops=frozenset(submit.stop_tokens),
        # The last token of an output is never fed, so it needs no position.
        max_tokens=min(submit.max_tokens, slot_tokens - len(prompt) + 1),
        priority=submit.priority,
        logprobs=submit.logprobs,
        drafting=submit.drafting,
        arrival=arrival,
        stats=StreamStats(prompt_tokens=len(prompt)),
    )
