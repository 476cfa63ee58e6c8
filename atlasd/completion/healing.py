"""Token healing: a prompt that ends inside a word ends with a token no model would have chosen.

Models that learned to fill in the middle were trained with holes cut at characters and need none
of this. Others saw whole tokens only; for them the last token is taken back, and the model chooses
the first token again among those that begin with the text that was taken back.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from atlasd.completion.ports import Engine, TextTokenizer
from atlasd.engine.protocol import Priority, Sampling

BIAS = 1000.0
"""Added to the logits of the tokens that fit: more than any model's logits are apart."""
MOST_CANDIDATES = 20_000
"""With more tokens to choose from (after a single space, say) nothing was cut in two."""


def take_back(
    tokenizer: TextTokenizer, tokens: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(the tokens without the last, the last); (all of them, nothing) where the last is no whole
    characters, ends a line, or is all there is."""
    last = tokenizer.token_bytes(tokens[-1]) if len(tokens) > 1 else b""
    try:
        text = last.decode()
    except UnicodeDecodeError:
        text = ""
    cut = len(tokens) - 1 if text and not text.endswith("\n") else len(tokens)
    return tuple(tokens[:cut]), tuple(tokens[cut:])


class Healer:
    """Knows which tokens begin with which bytes."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._sorted: list[tuple[bytes, int]] = []

    def candidates(self, data: bytes) -> list[int]:
        """Tokens whose bytes begin with ``data``, shortest beginnings first."""
        if not self._sorted:
            every = range(self._tokenizer.vocab_size)
            spelled = ((self._tokenizer.token_bytes(token), token) for token in every)
            self._sorted = sorted(pair for pair in spelled if pair[0])
        found = []
        for index in range(bisect_left(self._sorted, (data, -1)), len(self._sorted)):
            spelling, token = self._sorted[index]
            if not spelling.startswith(data):
                break
            found.append(token)
        return found

    async def first_token(
        self,
        engine: Engine,
        tokens: Sequence[int],
        taken_back: int,
        sampling: Sampling,
        *,
        priority: Priority,
        learn: bool,
    ) -> int:
        """The model's choice in place of the token that was taken back."""
        fitting = self.candidates(self._tokenizer.token_bytes(taken_back))
        if not 1 < len(fitting) <= MOST_CANDIDATES:
            return taken_back
        bias = {**sampling.logit_bias}
        for token in fitting:
            bias[token] = bias.get(token, 0.0) + BIAS
        stream = engine.submit(
            tokens,
            max_tokens=1,
            sampling=_with_bias(sampling, bias),
            priority=priority,
            drafting=False,
            learn=learn,
        )
        chosen = taken_back
        try:
            async for message in stream:
                chosen = int.from_bytes(message.tokens[:4], "little", signed=True)
        finally:
            stream.cancel()
        return chosen if chosen in fitting else taken_back


def _with_bias(sampling: Sampling, bias: dict[int, float]) -> Sampling:
    return Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        logit_bias=bias,
        seed=sampling.seed,
        choice=sampling.choice,
    )
