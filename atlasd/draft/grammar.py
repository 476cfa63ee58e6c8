"""Output held to a JSON schema or a regular expression, and the tokens that this forces.

llguidance does the parsing. A ``Constraint`` is one stream's state: its masks keep the target's
choices valid, its forced tokens are drafted with certainty, and other drafters' chains are trimmed
to what it allows, so that they meet the same masks at verification.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import llguidance
import llguidance.numpy as masks
import numpy as np
import numpy.typing as npt

from atlasd.draft.drafter import EMPTY, Draft, StreamView, VerifiedRows
from atlasd.errors import RequestError

Bool = npt.NDArray[np.bool_]

CERTAIN = 0.999
_LONGEST = 64


class Constraint:
    """What may come next in one stream. Not thread-safe."""

    def __init__(
        self,
        tokenizer: llguidance.LLTokenizer,
        kind: Literal["json_schema", "regex", "lark"],
        definition: str,
    ) -> None:
        """``tokenizer``: from the model's tokenizer.json. Raises RequestError if the definition
        cannot be used."""
        try:
            grammar: str = getattr(llguidance.LLMatcher, f"grammar_from_{kind}")(definition)
        except ValueError as error:
            raise RequestError(f"The {kind} cannot be used: {error}") from None
        self._matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        if self._matcher.is_error():
            raise RequestError(f"The {kind} cannot be used: {self._matcher.get_error()}")
        self.vocab_size = tokenizer.vocab_size
        self._bits = masks.allocate_token_bitmask(1, self.vocab_size)

    @property
    def finished(self) -> bool:
        """Nothing but the end token may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self, drafted: Sequence[int] = ()) -> Bool:
        """Which tokens may come next, [1 + drafted, vocab]: the rows a step verifies. Rows behind
        a drafted token that is not allowed are all False."""
        rows = np.zeros((len(drafted) + 1, self.vocab_size), bool)
        taken = 0
        for at in range(len(drafted) + 1):
            masks.fill_next_token_bitmask(self._matcher, self._bits, 0)
            rows[at] = np.unpackbits(
                self._bits[0].view(np.uint8), bitorder="little", count=self.vocab_size
            )
            if at == len(drafted) or not rows[at, drafted[at]]:
                break
            if not self._matcher.consume_token(drafted[at]):
                break
            taken += 1
        if taken:
            self._matcher.rollback(taken)
        return rows

    def valid(self, tokens: Sequence[int]) -> int:
        """How many of the tokens may follow, in order."""
        return int(self._matcher.validate_tokens(list(tokens))) if tokens else 0

    def forced(self, after: Sequence[int] = ()) -> list[int]:
        """Tokens that alone may follow ``after``; empty where there is a choice."""
        if self._matcher.try_consume_tokens(list(after)) < len(after):
            return []
        tokens: list[int] = self._matcher.compute_ff_tokens()
        if after:
            self._matcher.rollback(len(after))
        return tokens

    def accept(self, tokens: Sequence[int]) -> None:
        """The target chose these."""
        for token in tokens:
            if self._matcher.is_stopped() or not self._matcher.consume_token(token):
                return


class Grammar:
    """Drafts what constraints force. Streams without a constraint get nothing."""

    name = "grammar"
    free = True

    def __init__(self) -> None:
        self._constraints: dict[int, Constraint] = {}

    def constrain(self, stream: int, constraint: Constraint) -> None:
        """Hold a stream to a constraint; call before it begins."""
        self._constraints[stream] = constraint

    def trim(self, stream: StreamView, tokens: Sequence[int]) -> int:
        """How many drafted tokens the stream's constraint allows."""
        constraint = self._constraints.get(stream.stream)
        return len(tokens) if constraint is None else constraint.valid(tokens)

    def begin(self, stream: StreamView) -> None:
        """Constraints are given by ``constrain``."""

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        constraint = self._constraints.get(stream.stream)
        if constraint is None:
            return EMPTY
        tokens = constraint.forced(after)[: min(limit, _LONGEST)]
        if not tokens:
            return EMPTY
        return Draft(self.name, tokens, probabilities=[CERTAIN] * len(tokens))

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        constraint = self._constraints.get(stream.stream)
        if constraint is not None:
            constraint.accept(tokens)

    def settle(self, draft: Draft, accepted: int) -> None:
        """Nothing to learn from what was certain."""

    def end(self, stream: StreamView) -> None:
        self._constraints.pop(stream.stream, None)
