"""A token stream becomes text: incremental detokenising, stop strings across token borders,
log-probabilities per token, and a stream that is cancelled when its reader leaves."""

from __future__ import annotations

import codecs
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np

from atlasd.completion.ports import Engine, EngineStream, TextTokenizer
from atlasd.completion.stop_strings import StopStrings
from atlasd.engine.protocol import Priority, Sampling, StreamStats, TokenLogprob
from atlasd.errors import EngineError
from atlasd.workspace.secrets import find_secrets

MOST_LOOKED_THROUGH = 1 << 15
"""Tokens of a prompt and its prediction in which secrets are looked for; that takes 10 ms."""


@dataclass(frozen=True)
class ScoredToken:
    """A token with its log-probability; ``data`` are its bytes, which need not be whole
    characters; ``top`` are the likeliest tokens at its place, best first."""

    token: int
    data: bytes
    logprob: float
    top: tuple[ScoredToken, ...] = ()

    @property
    def text(self) -> str:
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True)
class Chunk:
    """Text that is certain to be part of the answer, and the scored tokens it came from."""

    text: str
    scores: tuple[ScoredToken, ...] = ()


class Generation:
    """The text of one stream, chunk by chunk.

    Iterate to the end, or leave early: closing (``async with``, ``aclose``) cancels the stream.
    ``finish_reason`` is ``stop`` or ``length`` (``cancelled`` when closed early), ``stop`` the
    stop string that was met, ``stats`` what the engine measured. Raises EngineError when the
    engine failed.
    """

    def __init__(
        self,
        stream: EngineStream,
        tokenizer: TextTokenizer,
        *,
        stop: Sequence[str] = (),
        stop_tokens: Sequence[int] = (),
        lead: bytes = b"",
    ) -> None:
        self.stream = stream
        self.finish_reason: str | None = None
        self.tokens: list[int] = []
        self._lead = lead
        self._tokenizer = tokenizer
        self._stops = StopStrings(stop)
        self._stop_tokens = frozenset(stop_tokens)
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._chunks = self._run()

    @property
    def stop(self) -> str | None:
        return self._stops.found

    @property
    def stats(self) -> StreamStats:
        """Measured by the engine; of a stream that never ended cleanly, what is known."""
        return self.stream.stats or StreamStats(output_tokens=len(self.tokens))

    def __aiter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def __aenter__(self) -> Generation:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop decoding within one step. Safe to call at any time, also twice."""
        if self.finish_reason is None:
            self.finish_reason = "cancelled"
            self.stream.cancel()
        await self._chunks.aclose()

    async def finish(self) -> None:
        """Enough has been read: stop decoding and wait, a step at most, for the statistics."""
        if self.finish_reason is None:
            self.finish_reason = "stop"
            self.stream.cancel()
            await self._chunks.aclose()
            await self._drain()

    async def text(self) -> str:
        """The whole text; for callers that do not stream."""
        return "".join([chunk.text async for chunk in self])

    async def _run(self) -> AsyncGenerator[Chunk, None]:
        try:
            if lead := self._stops.feed(self._utf8.decode(self._lead)):
                yield Chunk(lead)
            async for message in self.stream:
                if chunk := self._take(message.tokens, message.logprobs):
                    yield chunk
                if self.stop is not None:
                    self.finish_reason = "stop"
                    self.stream.cancel()
                    await self._drain()
                    return
            reason = self.stream.reason or "error"
            if reason == "error":
                raise EngineError("The engine ended this request.", "Ask again; see the log.")
            if rest := self._stops.feed(self._utf8.decode(b"", True)) + self._stops.flush():
                yield Chunk(rest)
            self.finish_reason = "stop" if self.stop is not None else reason
        finally:
            if self.finish_reason is None:
                self.finish_reason = "cancelled"
                self.stream.cancel()

    async def _drain(self) -> None:
        """Wait for the engine's last word: a cancelled stream ends within one step, and its
        statistics come with the end."""
        async for _ in self.stream:
            pass

    def _take(self, raw: bytes, logprobs: Sequence[TokenLogprob]) -> Chunk | None:
        text, scores = "", []
        for index, token in enumerate(np.frombuffer(raw, dtype="<i4").tolist()):
            if token in self._stop_tokens:
                continue
            data = self._tokenizer.token_bytes(token)
            self.tokens.append(token)
            text += self._stops.feed(self._utf8.decode(data))
            if index < len(logprobs):
                scores.append(self._score(token, data, logprobs[index]))
            if self.stop is not None:
                break
        return Chunk(text, tuple(scores)) if text or scores else None

    def _score(self, token: int, data: bytes, score: TokenLogprob) -> ScoredToken:
        top = tuple(
            ScoredToken(other.token, self._tokenizer.token_bytes(other.token), other.logprob)
            for other in score.top
        )
        return ScoredToken(token, data, score.logprob, top)


def generate(
    engine: Engine,
    tokenizer: TextTokenizer,
    tokens: Sequence[int],
    *,
    sampling: Sampling | None = None,
    max_tokens: int,
    stop: Sequence[str] = (),
    stop_tokens: Sequence[int] | None = None,
    priority: Priority = Priority.COMPLETION,
    repository: str | None = None,
    language: str | None = None,
    prediction: Sequence[int] = (),
    logprobs: int = -1,
    drafting: bool = True,
    learn: bool = True,
    grammar: str = "",
    prefix_end: int = 0,
    lead: bytes = b"",
) -> Generation:
    """Submit a stream and read it as text.

    ``stop_tokens`` defaults to the tokenizer's end-of-text tokens. ``stop`` strings may cross
    token borders; neither they nor what follows is part of the text. ``logprobs`` asks for that
    many alternatives per token, -1 for none. ``grammar`` holds the answer to a constraint, and
    ``prefix_end`` says where the text ends that it continues (see ``Submit``). ``lead`` are bytes
    of the answer that the prompt ends with already. Where the prompt or the prediction holds a
    secret, or they are too long to be looked through, nothing is learned: the answer may repeat it.
    """
    ends = list(tokenizer.eos_ids if stop_tokens is None else stop_tokens)
    stream = engine.submit(
        tokens,
        max_tokens=max_tokens,
        sampling=sampling or Sampling(),
        stop_tokens=ends,
        priority=priority,
        repository=repository,
        language=language,
        prediction=prediction,
        logprobs=logprobs,
        drafting=drafting,
        learn=learn and not _holds_secrets(tokenizer, [*tokens, *prediction]),
        grammar=grammar,
        prefix_end=prefix_end,
    )
    return Generation(stream, tokenizer, stop=stop, stop_tokens=ends, lead=lead)


def _holds_secrets(tokenizer: TextTokenizer, tokens: Sequence[int]) -> bool:
    if len(tokens) > MOST_LOOKED_THROUGH:
        return True
    text = b"".join(map(tokenizer.token_bytes, tokens)).decode("utf-8", "replace")
    return bool(find_secrets(text))
