"""OpenAI's chat answers: choices with what is said and called, whole or as events."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

from aiohttp import web

from atlasd.completion.calls import Argued, Called, CallReader, Piece, Said
from atlasd.completion.generate import ScoredToken
from atlasd.completion.tools import Calling
from atlasd.server.body import answer
from atlasd.server.chat_message import Message
from atlasd.server.choices import Choices, timings, usage
from atlasd.server.sse import event_stream


class Answer:
    """The parts of the body that are the same in every event of one answer."""

    def __init__(self, model: str, kind: str, *, learned: bool = True) -> None:
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }
        if not learned:
            self._head["learned"] = False

    def with_(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {**self._head, "choices": choices, **more}


class ChatReply:
    """One answer in the making; ``calling`` is how the model writes calls, if it may. Clients are
    told where nothing of it is ``learned``."""

    def __init__(
        self,
        model: str,
        told: Choices,
        count: int,
        calling: Calling | None,
        *,
        scored: bool,
        learned: bool,
    ) -> None:
        self._model = model
        self._told = told
        self._scored = scored
        self._learned = learned
        self._messages = [Message(CallReader(calling) if calling else None) for _ in range(count)]

    async def whole(self) -> web.StreamResponse:
        """All choices in one body."""
        async for index, chunk in self._told.chunks():
            self._messages[index].feed(chunk)
            if chunk is not None:
                self._messages[index].scores.extend(chunk.scores)
        choices = [
            {
                "index": index,
                "message": message.body,
                "logprobs": _logprobs(message.scores) if self._scored else None,
                "finish_reason": message.ended(self._told.finish_reason(index)),
            }
            for index, message in enumerate(self._messages)
        ]
        stats = self._told.stats
        head = Answer(self._model, "chat.completion", learned=self._learned)
        body = head.with_(choices, usage=usage(stats), timings=timings(stats))
        return answer(body)

    async def stream(
        self, request: web.Request, path: str, *, with_usage: bool
    ) -> web.StreamResponse:
        """An event per piece of text or of a call."""
        head = Answer(self._model, "chat.completion.chunk", learned=self._learned)
        # With usage asked for, every chunk has the key, and only the last one a value.
        tail = {"usage": None} if with_usage else {}
        started: set[int] = set()
        async with event_stream(request, path) as events:
            async for index, chunk in self._told.chunks():
                if index not in started:
                    started.add(index)
                    opening = {"role": "assistant", "content": ""}
                    await events.send(head.with_([_delta(index, opening)], **tail))
                message = self._messages[index]
                if chunk is not None:
                    message.scores.extend(chunk.scores)
                for piece in message.feed(chunk):
                    delta = _delta(index, _told(piece), None, self._scores_so_far(message))
                    await events.send(head.with_([delta], **tail))
                if chunk is None:
                    reason = message.ended(self._told.finish_reason(index))
                    delta = _delta(index, {}, reason, self._scores_so_far(message))
                    await events.send(head.with_([delta], **tail))
            if with_usage:
                stats = self._told.stats
                await events.send(head.with_([], usage=usage(stats), timings=timings(stats)))
            await events.done()
        return events.response

    def _scores_so_far(self, message: Message) -> dict[str, Any] | None:
        """Those that no event has told yet: tokens and pieces do not come one for one."""
        scores, message.scores = message.scores, []
        return _logprobs(scores) if self._scored and scores else None


def _told(piece: Piece) -> dict[str, Any]:
    match piece:
        case Said(text):
            return {"content": text}
        case Called(index, id, name):
            function = {"name": name, "arguments": ""}
            call = {"index": index, "id": id, "type": "function", "function": function}
            return {"tool_calls": [call]}
        case Argued(index, text):
            return {"tool_calls": [{"index": index, "function": {"arguments": text}}]}


def _delta(
    index: int,
    delta: dict[str, Any],
    reason: str | None = None,
    logprobs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _logprobs(scores: Sequence[ScoredToken]) -> dict[str, Any]:
    return {
        "content": [
            {**_score(token), "top_logprobs": [_score(other) for other in token.top]}
            for token in scores
        ],
        "refusal": None,
    }


def _score(token: ScoredToken) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.data)}
