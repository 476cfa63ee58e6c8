"""What one stream may say: a JSON schema, a regular expression or a grammar, token by token.

llguidance (https://github.com/guidance-ai/llguidance) does the parsing. Where the text is forced,
exactly one token is allowed: the one that the tokenizer itself would choose. So forced text needs
no choice, and a draft of it always holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import llguidance
import llguidance.numpy as masks
import numpy as np
import numpy.typing as npt

from atlasd.errors import RequestError

Bool = npt.NDArray[np.bool_]


class Constraint:
    """What may come next in one stream. Used by one thread at a time."""

    def __init__(self, tokenizer: llguidance.LLTokenizer, grammar: str) -> None:
        """``tokenizer``: of the model, made with its end tokens; ``grammar``: what
        ``LLMatcher.grammar_from_…`` gave. Raises RequestError if it cannot be used."""
        matcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise RequestError(f"The constraint cannot be used: {_why(matcher)}")
        self._start(tokenizer, matcher)

    def _start(self, tokenizer: llguidance.LLTokenizer, matcher: llguidance.LLMatcher) -> None:
        self._tokenizer = tokenizer
        self._matcher = matcher
        self._ends = [int(token) for token in tokenizer.eos_tokens]
        self.vocab_size = int(tokenizer.vocab_size)
        self._bits = masks.allocate_token_bitmask(1, self.vocab_size)

    def copy(self) -> Constraint:
        """The same state for another stream; compiling is what takes time."""
        made = Constraint.__new__(Constraint)
        made._start(self._tokenizer, self._matcher.deep_copy())
        return made

    @property
    def finished(self) -> bool:
        """Nothing but an end token may follow."""
        return bool(self._matcher.is_stopped())

    def allowed(self, drafted: Sequence[int] = ()) -> Bool:
        """Which tokens may come next, [1 + drafted, vocab]: the rows a step verifies. Rows behind
        a drafted token that is not allowed, or that ends the text, are all False."""
        rows = np.zeros((len(drafted) + 1, self.vocab_size), bool)
        taken = 0
        for at in range(len(drafted) + 1):
            self._fill(rows[at])
            if at == len(drafted) or not rows[at, drafted[at]] or drafted[at] in self._ends:
                break
            if not self._matcher.consume_token(drafted[at]):
                break
            taken += 1
        if self._matcher.is_error():
            raise RequestError(
                f"The constraint cannot be followed further: {_why(self._matcher)}",
                "A simpler schema or grammar may work.",
            )
        if taken:
            self._matcher.rollback(taken)
        return rows

    def valid(self, tokens: Sequence[int]) -> int:
        """How many of the tokens may follow, in order."""
        return int(self._matcher.validate_tokens(list(tokens))) if tokens else 0

    def forced(self, after: Sequence[int] = ()) -> list[int]:
        """Tokens that alone may follow ``after``; empty where there is a choice."""
        taken = self._matcher.try_consume_tokens(list(after)) if after else 0
        tokens: list[int] = []
        if taken == len(after) and not self._matcher.is_stopped():
            tokens = self._matcher.compute_ff_tokens()
        if taken:
            self._matcher.rollback(taken)
        return tokens

    def accept(self, tokens: Sequence[int]) -> int:
        """The target chose these. How many of them were needed until nothing more may follow."""
        for at, token in enumerate(tokens):
            if self._matcher.is_stopped():
                return at
            if token in self._ends:
                return at + 1
            self._matcher.consume_token(token)
        return len(tokens)

    def _fill(self, row: Bool) -> None:
        if self._matcher.is_stopped():
            row[self._ends] = True
        elif forced := self._matcher.compute_ff_tokens():
            row[forced[0]] = True
        else:
            masks.fill_next_token_bitmask(self._matcher, self._bits, 0)
            bits = self._bits[0].view(np.uint8)
            row[:] = np.unpackbits(bits, bitorder="little", count=self.vocab_size)


def _why(matcher: llguidance.LLMatcher) -> str:
    """What is wrong, without what the library says below it: the schema and the text so far, which
    are nobody's business in a log."""
    return str(matcher.get_error()).partition("\n")[0]
