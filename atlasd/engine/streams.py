"""One stream inside the engine: what it wants, how far it is, what it has cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from atlasd.draft.drafter import Draft, StreamView
from atlasd.draft.states import ROOM, States
from atlasd.engine.framing import unpack_tokens
from atlasd.engine.predicted import Predicted
from atlasd.engine.protocol import Priority, StreamStats, Submit
from atlasd.engine.sampling import ChooseRow, Sampler, choose_row
from atlasd.engine.slots import Int32
from atlasd.errors import RequestError

if TYPE_CHECKING:
    from atlasd.draft.constraint import Constraint


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
    prompt: Int32
    """The prompt as it came; read-only."""
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
    predicted: Predicted | None = None

    @property
    def tokens(self) -> list[int]:
        """Prompt and verified output."""
        return self.view.tokens

    @property
    def constraint(self) -> Constraint | None:
        """What its output is held to."""
        return self.view.constraint

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

    def has_read(self, milliseconds: float) -> None:
        """So much of the step at hand went into known tokens, such as the end of a prompt, which
        is short enough to be read in it."""
        self.stats.prefill_ms += milliseconds
        self.waits_since += milliseconds / 1e3

    def prefix(self, length: int | None = None) -> Int32:
        """Its first ``length`` tokens (all of them) as an array, not to be written to."""
        tokens, known = self.view.tokens, len(self.prompt)
        if length is None:
            length = len(tokens)
        if length <= known:
            return self.prompt[:length]
        return np.concatenate([self.prompt, np.array(tokens[known:length], dtype=np.int32)])

    @property
    def draft_limit(self) -> int:
        """The longest draft that can still be of use: a step gives one token more than it."""
        return self.max_tokens - self.stats.output_tokens - 1

    def take(self, chosen: list[int]) -> tuple[list[int], str, list[int]]:
        """Cut the target's tokens at the stream's end: (tokens that count, reason or "", tokens
        that are verified). A stop token is verified, but it is no output; what follows is neither.
        """
        left = self.max_tokens - self.stats.output_tokens
        tokens, reason = chosen[:left], "length" if len(chosen) >= left else ""
        verified = tokens
        for index, token in enumerate(tokens):
            if token in self.stops:
                tokens, reason, verified = chosen[:index], "stop", chosen[: index + 1]
                break
        if self.constraint is not None:
            needed = self.constraint.accept(verified)
            if self.constraint.finished and needed <= len(tokens):
                tokens, reason, verified = tokens[:needed], "stop", verified[:needed]
        if self.predicted is not None:
            self.predicted.feed(tokens)
        return tokens, reason, verified

    def states(self, hidden: int) -> States:
        """Where drafters see the states, of so many numbers, that chose its tokens."""
        if self.view.states is None:
            self.view.states = States(hidden, min(ROOM, self.max_tokens + 1))
        return self.view.states

    def count(self, draft: Draft, decided: int, accepted: int) -> None:
        """Book a draft of which ``decided`` tokens were judged and ``accepted`` right."""
        self.count_by_source(draft.by_source(decided), draft.by_source(accepted))

    def count_by_source(self, decided: dict[str, int], accepted: dict[str, int]) -> None:
        """The same of drafts whose tokens are counted already."""
        drafted, right = self.stats.drafted, self.stats.accepted
        for source, count in decided.items():
            drafted[source] = drafted.get(source, 0) + count
            right[source] = right.get(source, 0) + accepted.get(source, 0)

    def sum_up(self) -> None:
        """What is only known at the end."""
        if self.predicted is not None:
            self.stats.prediction_accepted = self.predicted.accepted
            self.stats.prediction_rejected = self.predicted.rejected


def new_stream(
    submit: Submit,
    arrival: int,
    *,
    vocab_size: int,
    slot_tokens: int,
    choose: ChooseRow = choose_row,
    constraint: Constraint | None = None,
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
    array = np.frombuffer(submit.tokens, "<i4")
    if array.min() < 0 or array.max() >= vocab_size:
        raise RequestError(
            "The prompt has a token that the model does not know.",
            "It was made with another tokenizer.",
        )
    if submit.max_tokens < 1:
        raise RequestError("max_tokens is out of range.", "Ask for at least one token.")
    sampling = submit.sampling
    prediction = np.frombuffer(submit.prediction, "<i4") if submit.prediction else None
    view = StreamView(
        stream=submit.stream,
        tokens=prompt,
        prompt_length=len(prompt),
        repository=submit.repository,
        language=submit.language,
        prediction=prediction,
        learn=submit.learn,
        temperature=sampling.temperature,
        seed=sampling.seed,
        choice=sampling.choice,
        constraint=constraint,
        prefix_end=submit.prefix_end,
        prompt=array,
    )
    return Stream(
        number=submit.stream,
        view=view,
        sampler=Sampler(sampling, prompt, vocab_size, choose),
        stops=frozenset(submit.stop_tokens),
        # The last token of an output is never fed, so it needs no position.
        max_tokens=min(submit.max_tokens, slot_tokens - len(prompt) + 1),
        prompt=array,
        priority=submit.priority,
        logprobs=submit.logprobs,
        drafting=submit.drafting,
        arrival=arrival,
        stats=StreamStats(prompt_tokens=len(prompt)),
        predicted=None if prediction is None else Predicted(prediction.tolist()),
    )
