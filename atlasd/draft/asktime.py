"""What an ask of a drafter takes: a part for asking at all, and a part for each token.

The first is not small where a step of the target has pushed the drafter's weights out of the
caches. To end a chain where its next token does not pay, the second alone counts.
"""

from __future__ import annotations

FORGET = 0.95
"""What an observation weighs after each later one."""

OUTLIER = 3.0
"""An observation counts as at most this many times what was expected."""

PRIOR = 8.0
"""Observations that the measured time of a token is worth."""


class AskTime:
    """A line through observed times, by least squares that forget; both of its terms positive."""

    def __init__(self, token_ms: float) -> None:
        """``token_ms``: a token of a long chain, measured."""
        self.token_ms = token_ms
        self.fixed_ms = 0.0
        self._first = token_ms
        self._count = self._tokens = self._ms = self._squares = self._products = 0.0

    def of(self, tokens: float) -> float:
        """Milliseconds of an ask for so many tokens."""
        return self.fixed_ms + tokens * self.token_ms

    def observe(self, tokens: int, ms: float) -> None:
        """An ask in which so many tokens were computed took this long."""
        if self._count:
            ms = min(ms, OUTLIER * self.of(tokens))
        self._count = FORGET * self._count + 1.0
        self._tokens = FORGET * self._tokens + tokens
        self._ms = FORGET * self._ms + ms
        self._squares = FORGET * self._squares + tokens * tokens
        self._products = FORGET * self._products + tokens * ms
        mean, mean_ms = self._tokens / self._count, self._ms / self._count
        # Asks of one length say nothing of the slope: the measured one is held against them.
        spread = self._squares / self._count - mean * mean
        slope = self._products / self._count - mean * mean_ms
        held = PRIOR / self._count
        slope = (slope + held * self._first) / (spread + held)
        self.token_ms = min(max(slope, 0.25 * self._first), mean_ms / mean)
        self.fixed_ms = mean_ms - self.token_ms * mean
