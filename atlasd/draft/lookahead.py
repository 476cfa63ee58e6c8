"""What a chain is drafted from, and the two things that draft one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from atlasd.draft.drafter import Float32, Int32


@dataclass(frozen=True, slots=True)
class Noise:
    """The target's noise for the first token of a chain."""

    temperature: float
    seed: int
    choice: int
    output_index: int


@dataclass(frozen=True, slots=True)
class Lookahead:
    """One question to a drafter's model."""

    tokens: list[int]
    """What is read first, at least one; the chain follows the last."""
    before: int
    """The token before the last one; -1: there is none."""
    slot: int
    position: int
    """Of the first of ``tokens``."""
    limit: int
    """Tokens of a chain at most."""
    least: float
    """A chain ends before the product of its probabilities falls below this."""
    noise: Noise
    chose: Float32 | None = None
    """The target's state that chose the last of ``tokens``, [1, hidden]; None: not known."""


Chain = tuple[list[int], list[float]]
"""Tokens, and the model's probability of each."""


class Chains(Protocol):
    """Whatever drafts chains: a model, or an adapter's correction of one."""

    def chain(self, ask: Lookahead) -> Chain:
        """The model's own continuation."""
        ...


class ChainModel(Chains, Protocol):
    """A model that drafts: ``slots`` sequences of at most ``slot_tokens`` positions."""

    slots: int
    slot_tokens: int
    carries: bool
    """Whether it makes use of the target's states."""

    def read(self, tokens: Int32, slot: int, position: int) -> None:
        """Take tokens [n] into the slot from ``position`` on."""
        ...

    def memory_bytes(self) -> dict[str, int]:
        """Bytes held, by purpose."""
        ...
