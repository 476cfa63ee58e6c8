"""OpenAI's chat completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

import secrets
import time
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from atlasd.completion.generate import Chunk, ScoredToken, generate
from atlasd.engine.protocol import Priority
from atlasd.server.body import answer, read
from atlasd.server.choices import Choices, timings, usage
from atlasd.server.errors import invalid
from atlasd.server.sampling import (
    Prediction,
    SamplingFields,
    StreamOptions,
    TextPart,
    check_choices,
    joined,
    predicted_tokens,
    refuse,
    room,
    stops,
)
from atlasd.server.services import Serving, services
from atlasd.server.sse import event_stream

PATH = "/v1/chat/completions"


class ChatMessage(msgspec.Struct):
    role: str
    content: str | list[TextPart] | None = None
    name: str | None = None


class ChatRequest(SamplingFields, kw_only=True):
    """What is read of the body. Other keys are ignored."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=-1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    prediction: Prediction | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def wanted(self) -> int | None:
        """Tokens asked for; None: as many as fit."""
        limit = self.max_completion_tokens or self.max_tokens
        return None if limit is None or limit < 0 else max(1, limit)

    @property
    def alternatives(self) -> int:
        """As ``generate`` takes it: -1 for no log-probabilities."""
        if not self.logprobs:
            if self.top_logprobs:
                raise invalid("top_logprobs needs logprobs to be true.", "top_logprobs")
            return -1
        return self.top_logprobs or 0


class Answer:
    """The parts of the body that are the same in every event of one answer."""

    def __init__(self, model: str, kind: str) -> None:
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "object": kind,
            "created": int(time.time()),
            "model": model,
        }

    def with_(self, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
        return {**self._head, "choices": choices, **more}


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Answer a conversation, whole or as events."""
    asked = await read(request, ChatRequest)
    count = check_choices(asked.n)
    _refuse_unsupported(asked)
    async with services(request).use() as serving, _start(request, serving, asked, count) as told:
        if asked.stream:
            return await _stream(request, serving, asked, told)
        return await _whole(serving, asked, told, count)


def _refuse_unsupported(asked: ChatRequest) -> None:
    if asked.tools and asked.tool_choice != "none":
        refuse({"tools": asked.tools})
    kind = (asked.response_format or {}).get("type", "text")
    if kind != "text":
        raise invalid(
            f"response_format {kind} is not supported by this server.",
            "response_format",
            "not_supported",
        )


def _start(request: web.Request, serving: Serving, asked: ChatRequest, count: int) -> Choices:
    messages = [
        {"role": message.role, "content": joined(message.content, f"messages[{index}].content")}
        for index, message in enumerate(asked.messages)
    ]
    prompt = serving.chat.tokens(serving.tokenizer, messages)
    limit = room(serving, len(prompt), asked.wanted, "messages")
    prediction = predicted_tokens(asked.prediction, serving.tokenizer)
    alternatives = asked.alternatives
    return Choices(
        [
            generate(
                serving.engine,
                serving.tokenizer,
                prompt,
                sampling=sampling,
                max_tokens=limit,
                stop=(*stops(asked.stop), *serving.chat.stop),
                priority=Priority.CHAT,
                prediction=prediction,
                logprobs=alternatives,
                drafting=asked.drafting,
            )
            for sampling in asked.sampling(serving.tokenizer.vocab_size, count)
        ],
        services(request).meter,
    )


async def _whole(
    serving: Serving, asked: ChatRequest, told: Choices, count: int
) -> web.StreamResponse:
    texts = [""] * count
    scores: list[list[ScoredToken]] = [[] for _ in range(count)]
    async for index, chunk in told.chunks():
        if chunk is not None:
            texts[index] += chunk.text
            scores[index].extend(chunk.scores)
    choices = [
        {
            "index": index,
            "message": {"role": "assistant", "content": text, "refusal": None},
            "logprobs": _logprobs(scores[index]) if asked.logprobs else None,
            "finish_reason": told.finish_reason(index),
        }
        for index, text in enumerate(texts)
    ]
    body = Answer(serving.name, "chat.completion").with_(
        choices, usage=usage(told.stats), timings=timings(told.stats)
    )
    return answer(body)


async def _stream(
    request: web.Request, serving: Serving, asked: ChatRequest, told: Choices
) -> web.StreamResponse:
    head = Answer(serving.name, "chat.completion.chunk")
    with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
    # With usage asked for, every chunk has the key, and only the last one a value.
    tail = {"usage": None} if with_usage else {}
    started: set[int] = set()
    async with event_stream(request, PATH) as events:
        async for index, chunk in told.chunks():
            if index not in started:
                started.add(index)
                opening = {"role": "assistant", "content": ""}
                await events.send(head.with_([_delta(index, opening)], **tail))
            if chunk is None:
                ending = _delta(index, {}, told.finish_reason(index))
                await events.send(head.with_([ending], **tail))
                continue
            delta = _delta(index, {"content": chunk.text}, None, _scores(asked, chunk))
            await events.send(head.with_([delta], **tail))
        if with_usage:
            await events.send(head.with_([], usage=usage(told.stats), timings=timings(told.stats)))
        await events.done()
    return events.response


def _delta(
    index: int,
    delta: dict[str, Any],
    reason: str | None = None,
    logprobs: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


def _scores(asked: ChatRequest, chunk: Chunk) -> dict[str, Any] | None:
    return _logprobs(chunk.scores) if asked.logprobs else None


def _logprobs(scores: list[ScoredToken] | tuple[ScoredToken, ...]) -> dict[str, Any]:
    return {
        "content": [
            {**_score(token), "top_logprobs": [_score(other) for other in token.top]}
            for token in scores
        ],
        "refusal": None,
    }


def _score(token: ScoredToken) -> dict[str, Any]:
    return {"token": token.text, "logprob": token.logprob, "bytes": list(token.data)}
