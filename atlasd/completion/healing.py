"""Token healing: a prompt that ends inside a word ends with a token no model would have chosen.

Models that learned to fill in the middle were trained with holes cut at characters and need none
of this. Others saw whole tokens only; for them the last word is taken back, and the model chooses
its tokens again among those that spell it or begin with it.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from atlasd.completion.ports import Engine, TextTokenizer
from atlasd.engine.protocol import Priority, Sampling, StreamStats

BIAS = 1000.0
"""Added to the logits of the tokens that fit: more than any model's logits are apart."""
MOST_CANDIDATES = 20_000
"""With more tokens to choose from (after a single space, say) nothing was cut in two."""
MOST_TAKEN_BACK = 4


_WORD = re.compile(r"\w+")
_WORD_WITH_SPACE = re.compile(r" ?\w+")


def take_back(
    tokenizer: TextTokenizer, tokens: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(the tokens before the last word, those of the last word); what is not a word counts as one
    token. Nothing is taken back where the text ends with a line or inside a character, and the
    first token of all always stays."""
    cut = len(tokens)
    while cut > 1 and len(tokens) - cut < MOST_TAKEN_BACK:
        try:
            text = tokenizer.token_bytes(tokens[cut - 1]).decode()
        except UnicodeDecodeError:
            break
        if (
            not text
            or text.endswith("\n")
            or (cut < len(tokens) and not _WORD_WITH_SPACE.fullmatch(text))
        ):
            break
        cut -= 1
        if not _WORD.fullmatch(text):
            break
    return tuple(tokens[:cut]), tuple(tokens[cut:])


class Healer:
    """Knows which tokens begin with which bytes."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._sorted: list[tuple[bytes, int]] = []
        self._of: dict[bytes, int] = {}

    def candidates(self, data: bytes) -> list[int]:
        """Tokens whose bytes begin with ``data``, and those that ``data`` begins with."""
        if not self._sorted:
            every = range(self._tokenizer.vocab_size)
            spelled = ((self._tokenizer.token_bytes(token), token) for token in every)
            self._sorted = sorted(pair for pair in spelled if pair[0])
            self._of = dict(reversed(self._sorted))
        found = [self._of[data[:end]] for end in range(1, len(data)) if data[:end] in self._of]
        for index in range(bisect_left(self._sorted, (data, -1)), len(self._sorted)):
            spelling, token = self._sorted[index]
            if not spelling.startswith(data):
                break
            found.append(token)
        return found

    async def heal(
        self,
        engine: Engine,
        tokens: Sequence[int],
        taken_back: Sequence[int],
        sampling: Sampling,
        *,
        priority: Priority,
        learn: bool,
        spent: list[StreamStats],
    ) -> tuple[list[int], bytes]:
        """(the model's own tokens for what was taken back, what they say beyond it). What asking
        for them cost is added to ``spent``."""
        rest = b"".join(map(self._tokenizer.token_bytes, taken_back))
        chosen: list[int] = []
        while rest:
            fitting = self.candidates(rest)
            if not 1 < len(fitting) <= MOST_CANDIDATES:
                break
            bias = {**sampling.logit_bias}
            for token in fitting:
                bias[token] = bias.get(token, 0.0) + BIAS
            first = await self._first(
                engine, [*tokens, *chosen], sampling, bias, priority, learn, spent
            )
            if first not in fitting:
                break
            chosen.append(first)
            said = self._tokenizer.token_bytes(first)
            if len(said) >= len(rest):
                return chosen, said[len(rest) :]
            rest = rest[len(said) :]
        return list(taken_back), b""

    async def _first(
        self,
        engine: Engine,
        tokens: Sequence[int],
        sampling: Sampling,
        bias: dict[int, float],
        priority: Priority,
        learn: bool,
        spent: list[StreamStats],
    ) -> int | None:
        """One token under a bias."""
        stream = engine.submit(
            tokens,
            max_tokens=1,
            sampling=_with_bias(sampling, bias),
            priority=priority,
            drafting=False,
            learn=learn,
        )
        first: int | None = None
        try:
            async for message in stream:
                first = int.from_bytes(message.tokens[:4], "little", signed=True)
        finally:
            stream.cancel()
        if stream.stats is not None:
            spent.append(stream.stats)
        return first


def with_healing(stats: StreamStats, spent: Sequence[StreamStats]) -> StreamStats:
    """What a request cost together with the healing before it, which computed its prompt."""
    every = [*spent, stats]
    computed = sum(one.prefilled_tokens for one in every)
    return msgspec.structs.replace(
        stats,
        queue_ms=sum(one.queue_ms for one in every),
        prefill_ms=sum(one.prefill_ms for one in every),
        decode_ms=sum(one.decode_ms for one in every),
        cached_tokens=max(0, stats.prompt_tokens - computed),
        prefilled_tokens=computed,
        steps=sum(one.steps for one in every),
        rows=sum(one.rows for one in every),
    )


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
