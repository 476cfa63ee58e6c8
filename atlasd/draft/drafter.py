"""The contract of everything that proposes tokens."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from atlasd.draft.constraint import Constraint
    from atlasd.draft.states import States

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


@dataclass
class StreamView:
    """What a drafter may know of a stream. ``tokens`` is prompt plus verified output and grows in
    place (the engine appends; drafters only read)."""

    stream: int
    tokens: list[int]
    prompt_length: int
    repository: str | None = None
    language: str | None = None
    prediction: Int32 | None = None
    """Tokens the user expects the output to resemble (OpenAI's ``prediction``)."""
    learn: bool = True
    """False in workspaces that are not trusted: nothing of the stream outlives it."""
    temperature: float = 0.0
    seed: int = 0
    choice: int = 0
    """With ``temperature`` and ``seed`` the key of the target's noise, so that a neural drafter can
    sample with the same."""
    constraint: Constraint | None = None
    """What the output is held to; the engine advances it."""
    states: States | None = None
    """The target's states that chose the verified output, where the target keeps them; the engine
    adds to it."""
    prefix_end: int = 0
    """In a prompt that asks to fill in the middle: where the text ends that the output continues;
    what is behind it in the prompt follows the output, or marks the place. 0: the prompt's end."""
    prompt: Int32 | None = None
    """The prompt as an array, where it came as one; not to be written to."""

    def since(self, begin: int) -> list[int]:
        """``tokens`` from ``begin`` on, in an order in which the output follows the text that it
        continues: what else is in the prompt comes first. What drafters look back to."""
        if begin >= self.prompt_length or not 0 < self.prefix_end < self.prompt_length:
            return self.tokens[begin:]
        prompt = self.tokens[self.prefix_end : self.prompt_length] + self.tokens[: self.prefix_end]
        return prompt[begin:] + self.tokens[self.prompt_length :]

    def text(self) -> Int32:
        """``since(0)`` as an array, not to be written to."""
        prompt = self.prompt
        if prompt is None or len(self.tokens) != len(prompt):
            # By way of an array: from a list numpy takes three times as long.
            return np.frombuffer(array("i", self.since(0)), np.int32)
        if not 0 < self.prefix_end < len(prompt):
            return prompt
        return np.concatenate((prompt[self.prefix_end :], prompt[: self.prefix_end]))

    def last(self, count: int) -> list[int]:
        """The last ``count`` tokens of ``since``."""
        return self.since(max(0, len(self.tokens) - count))


@dataclass(slots=True)
class Draft:
    """Proposed tokens, with what is known of each: the features confidence is learned from.

    Nobody changes one that was handed on (it is not frozen because that takes longer to make)."""

    source: str
    tokens: list[int]
    features: list[tuple[int, ...]] = field(default_factory=list)
    """Per token, the source's own features as bucket numbers 0..255 (confidence learns one weight
    per bucket); their meaning and count are fixed per source."""

    credit: object = None
    """Whatever the drafter wants back in ``settle`` (which segment it drafted from, say)."""

    probabilities: list[float] | None = None
    """Per token its confidence, from a drafter that is calibrated by itself; such drafts are not
    scored by the controller."""

    parts: tuple[tuple[str, int], ...] = ()
    """Where a draft mixes sources: (source, count) in token order."""

    def by_source(self, count: int) -> dict[str, int]:
        """Of the first ``count`` tokens, how many each source proposed."""
        found: dict[str, int] = {}
        for source, size in self.parts or ((self.source, len(self.tokens)),):
            taken = min(size, count)
            if taken > 0:
                found[source] = found.get(source, 0) + taken
                count -= taken
        return found


EMPTY = Draft("none", [])


@dataclass(frozen=True)
class VerifiedRows:
    """What one step told about one stream: the rows that were verified, rejected ones included."""

    after: Int32
    """Token that each row fed to the target, [R]."""

    top: Int32
    """The target's top choices at each row, best first, [R, K]."""

    top_logprobs: Float32
    """Their log-probabilities at temperature 1, [R, K]; [R, 0] where they were not computed."""


class FirstChoices(VerifiedRows):
    """``VerifiedRows`` from lists, whose arrays are made only for a drafter that looks at them."""

    def __init__(self, after: list[int], best: list[int]) -> None:
        """``after``: the tokens that the rows fed; ``best``: the target's first choice at each."""
        self.__dict__.update(fed=after, best=best)

    fed: list[int]
    best: list[int]

    @property
    def after(self) -> Int32:
        return np.array(self.fed, np.int32)

    @property
    def top(self) -> Int32:
        return np.array(self.best, np.int32)[:, None]

    @property
    def top_logprobs(self) -> Float32:
        return np.zeros((len(self.best), 0), np.float32)


class Drafter(Protocol):
    """Something that proposes tokens. Runs in the engine process, on the step loop's thread."""

    name: str
    free: bool
    """True if a proposal costs so little that it is asked for at every step."""

    def begin(self, stream: StreamView) -> None:
        """A stream starts: prompt tokens, repository, language and prediction are known."""
        ...

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        """At most ``limit`` tokens to follow ``stream.tokens + after``; may be empty."""
        ...

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        """Tokens were verified and appended to ``stream.tokens`` (already there)."""
        ...

    def settle(self, draft: Draft, accepted: int) -> None:
        """A proposal was decided: its first ``accepted`` tokens were the target's."""
        ...

    def end(self, stream: StreamView) -> None:
        """The stream is over, finished or cancelled."""
        ...
