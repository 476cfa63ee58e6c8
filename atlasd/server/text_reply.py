"""OpenAI's ``text_completion``: choices and their log-probabilities, whole or as events."""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from aiohttp import web

from atlasd.completion.generate import ScoredToken
from atlasd.server.body import answer
from atlasd.server.choices import Choices, timings, usage
from atlasd.server.sse import event_stream


class TextReply:
    """One answer in the making. ``echoes`` are what each choice's text begins with; each prompt
    has ``per_prompt`` choices."""

    def __init__(
        self, model: str, told: Choices, echoes: Sequence[str], per_prompt: int, scored: bool
    ) -> None:
        self._told = told
        self._per_prompt = per_prompt
        self._echoes = echoes
        self._scored = scored
        self._head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": model,
        }

    async def whole(self) -> web.StreamResponse:
        """All choices in one body."""
        texts = list(self._echoes)
        scores: list[list[ScoredToken]] = [[] for _ in texts]
        async for index, chunk in self._told.chunks():
            if chunk is not None:
                texts[index] += chunk.text
                scores[index].extend(chunk.scores)
        choices = [
            self._choice(
                index, text, self._told.finish_reason(index), _logprobs(scores[index], Offsets())
            )
            for index, text in enumerate(texts)
        ]
        return answer({**self._head, "choices": choices, **self._cost()})

    async def stream(
        self, request: web.Request, path: str, *, with_usage: bool
    ) -> web.StreamResponse:
        """An event per piece of text."""
        # With usage asked for, every event has the key, and only the last one a value.
        tail = {"usage": None} if with_usage else {}
        async with event_stream(request, path) as events:
            async for choice in self._pieces():
                await events.send({**self._head, "choices": [choice], **tail})
            if with_usage:
                await events.send({**self._head, "choices": [], **self._cost()})
            await events.done()
        return events.response

    def _cost(self) -> dict[str, Any]:
        stats = self._told.stats
        return {"usage": usage(stats, self._per_prompt), "timings": timings(stats)}

    async def _pieces(self) -> AsyncIterator[dict[str, Any]]:
        offsets = [Offsets() for _ in self._echoes]
        for index, echo in enumerate(self._echoes):
            if echo:
                yield self._choice(index, echo, None)
        async for index, chunk in self._told.chunks():
            if chunk is None:
                yield self._choice(index, "", self._told.finish_reason(index))
            else:
                told = _logprobs(chunk.scores, offsets[index])
                yield self._choice(index, chunk.text, None, told)

    def _choice(
        self,
        index: int,
        text: str,
        reason: str | None,
        logprobs: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        told = logprobs if self._scored else None
        return {"index": index, "text": text, "logprobs": told, "finish_reason": reason}


class Offsets:
    """The characters of one choice's text before each of its tokens, which may share one."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._characters = 0

    def before(self, token: ScoredToken) -> int:
        """Tokens are asked about once each, in their order."""
        begin = self._characters
        self._characters += len(self._utf8.decode(token.data))
        return begin


def _logprobs(scores: Sequence[ScoredToken], offsets: Offsets) -> dict[str, Any] | None:
    if not scores:
        return None
    return {
        "tokens": [token.text for token in scores],
        "token_logprobs": [token.logprob for token in scores],
        "top_logprobs": [{other.text: other.logprob for other in token.top} for token in scores],
        "text_offset": [offsets.before(token) for token in scores],
    }
