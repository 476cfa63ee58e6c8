"""What an adapter needs of a static drafter: its last hidden states and its draft head."""

from __future__ import annotations

from typing import Protocol

from atlasd_kernels.cpu.correction import LowRank

from atlasd.draft.drafter import Float32, Int32
from atlasd.draft.lookahead import Chains


class Adaptable(Protocol):
    """A static drafter that can be corrected. Runs on the step loop's thread."""

    identity: str
    """Names the checkpoint: an adapter of one drafter is none of another."""
    hidden: int
    vocab_size: int
    slot_tokens: int
    carries: bool
    """Whether its states depend on those that chose the tokens."""
    head: Int32 | None
    """Token ids the drafter proposes, most frequent first; None: all."""

    def states(self, tokens: Int32, position: int, chose: Float32 | None = None) -> Float32:
        """Normalised last hidden states [n, hidden] of tokens [n] read from ``position`` on, in a
        slot that no stream uses; what it holds before ``position`` is what was read last. A
        drafter that carries states may be given those of the target that chose the tokens,
        [n, hidden]; rows of zeros: not known."""
        ...

    def rows(self, ids: Int32) -> Float32:
        """The head's rows of these tokens, [n, hidden]."""
        ...

    def corrected(self, weights: LowRank) -> Chains:
        """The drafter with a correction (``learn.adapter`` has the formula). The arrays are
        copied."""
        ...
