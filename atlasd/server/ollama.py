"""Ollama's ``POST /api/generate`` and ``POST /api/chat``, whole or as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from atlasd.completion.calls import CallReader, Said
from atlasd.completion.generate import Generation, generate
from atlasd.completion.request import CompletionRequest
from atlasd.engine.protocol import Priority
from atlasd.server.body import answer, compact, read
from atlasd.server.chat_message import Message
from atlasd.server.chat_request import ChatMessage, ChatRequest, Conversation, conversation
from atlasd.server.choices import Choices
from atlasd.server.constraints import ToolField
from atlasd.server.errors import error_body, from_exception
from atlasd.server.middle import middle_generation
from atlasd.server.ollama_models import when
from atlasd.server.sampling import SamplingFields, room, stops
from atlasd.server.services import Serving, services

Format = Literal["", "json"] | dict[str, Any]


class Options(SamplingFields, kw_only=True):
    """What is read of ``options``."""

    num_predict: int | None = None
    stop: str | list[str] | None = None

    @property
    def wanted(self) -> int | None:
        """Tokens asked for; None: as many as fit."""
        limit = self.num_predict
        return None if limit is None or limit < 0 else max(1, limit)


class _Asked(msgspec.Struct, kw_only=True):
    model: str = ""
    stream: bool = True
    format: Format | None = None
    options: Options = msgspec.field(default_factory=Options)

    def held(self) -> ChatRequest:
        """The format as the other APIs have it, in a request without anything else."""
        nothing = [ChatMessage("user", "")]
        if not self.format:
            return ChatRequest(messages=nothing)
        schema = {"type": "object"} if self.format == "json" else self.format
        assert isinstance(schema, dict)
        return ChatRequest(messages=nothing, json_schema=schema)


class GenerateRequest(_Asked, kw_only=True):
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    raw: bool = False


class OllamaChatRequest(_Asked, kw_only=True):
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    tools: list[ToolField] | None = None


async def generate_text(request: web.Request) -> web.StreamResponse:
    """What follows a prompt, or belongs between it and a suffix."""
    asked = await read(request, GenerateRequest)
    daemon = services(request)
    async with daemon.use() as serving:
        if not asked.prompt and not asked.suffix:
            # Clients load a model by asking for nothing.
            loaded = {"response": "", "done": True, "done_reason": "load"}
            return answer({**_head(serving), **loaded})
        if asked.suffix:
            generation = _in_the_middle(serving, asked, daemon.config.completion.max_tokens)
        else:
            generation = _after(serving, asked, _prompt(serving, asked))
        async with Choices([generation], daemon.meter) as told:
            lines = _texts(serving, told)
            return await _send(request, lines, _joined_text, stream=asked.stream)


def _prompt(serving: Serving, asked: GenerateRequest) -> Conversation:
    if asked.raw:
        tokens = serving.encode_prompt(asked.prompt)
        return Conversation(tokens, asked.held().held(), None)
    messages = [ChatMessage("system", asked.system)] if asked.system else []
    messages.append(ChatMessage("user", asked.prompt))
    held = msgspec.structs.replace(asked.held(), messages=messages)
    return conversation(serving, held)


def _after(serving: Serving, asked: _Asked, talk: Conversation) -> Generation:
    options = asked.options
    return generate(
        serving.engine,
        serving.tokenizer,
        talk.prompt,
        sampling=options.sampling(serving.tokenizer.vocab_size)[0],
        max_tokens=room(serving, len(talk.prompt), options.wanted),
        stop=(*stops(options.stop), *serving.chat.stop),
        priority=Priority.CHAT,
        drafting=options.drafting,
        grammar=talk.grammar,
    )


def _in_the_middle(serving: Serving, asked: GenerateRequest, default: int) -> Generation:
    options = asked.options
    cursor = CompletionRequest(
        prefix=asked.prompt,
        suffix=asked.suffix,
        gather=False,
        max_tokens=options.wanted or default,
        sampling=options.sampling(serving.tokenizer.vocab_size)[0],
        stop=stops(options.stop),
        trim=False,
        client="ollama",
        drafting=options.drafting,
    )
    return middle_generation(serving, cursor)


async def chat(request: web.Request) -> web.StreamResponse:
    """The answer to a conversation; calls come whole."""
    asked = await read(request, OllamaChatRequest)
    daemon = services(request)
    async with daemon.use() as serving:
        held = msgspec.structs.replace(asked.held(), messages=asked.messages, tools=asked.tools)
        talk = conversation(serving, held)
        async with Choices([_after(serving, asked, talk)], daemon.meter) as told:
            reader = CallReader(talk.calling) if talk.calling else None
            lines = _messages(serving, told, Message(reader))
            return await _send(request, lines, _joined_message, stream=asked.stream)


async def _texts(serving: Serving, told: Choices) -> AsyncIterator[dict[str, Any]]:
    async for _, chunk in told.chunks():
        if chunk is not None:
            yield {**_head(serving), "response": chunk.text, "done": False}
    yield {**_head(serving), "response": "", **_ended(told)}


async def _messages(
    serving: Serving, told: Choices, message: Message
) -> AsyncIterator[dict[str, Any]]:
    async for _, chunk in told.chunks():
        for piece in message.feed(chunk):
            if isinstance(piece, Said):
                yield _line(serving, {"content": piece.text})
    for call in message.calls:
        function = call["function"]
        # One that was cut has no arguments that could be read.
        with contextlib.suppress(ValueError):
            arguments = json.loads(function["arguments"])
            named = {"function": {"name": function["name"], "arguments": arguments}}
            yield _line(serving, {"content": "", "tool_calls": [named]})
    yield {**_line(serving, {"content": ""}), **_ended(told)}


def _line(serving: Serving, message: dict[str, Any]) -> dict[str, Any]:
    return {**_head(serving), "message": {"role": "assistant", **message}, "done": False}


def _head(serving: Serving) -> dict[str, Any]:
    return {"model": serving.name, "created_at": when(time.time())}


def _ended(told: Choices) -> dict[str, Any]:
    """The last line's facts; times in nanoseconds."""
    (stats,) = told.stats
    total_ms = stats.queue_ms + stats.prefill_ms + stats.decode_ms
    return {
        "done": True,
        "done_reason": told.finish_reason(0),
        "total_duration": int(total_ms * 1e6),
        "load_duration": int(stats.queue_ms * 1e6),
        "prompt_eval_count": stats.prompt_tokens,
        "prompt_eval_duration": int(stats.prefill_ms * 1e6),
        "eval_count": stats.output_tokens,
        "eval_duration": int(stats.decode_ms * 1e6),
    }


def _joined_text(lines: list[dict[str, Any]]) -> dict[str, Any]:
    return {**lines[-1], "response": "".join(line["response"] for line in lines)}


def _joined_message(lines: list[dict[str, Any]]) -> dict[str, Any]:
    messages = [line["message"] for line in lines]
    whole: dict[str, Any] = {
        "role": "assistant",
        "content": "".join(message["content"] for message in messages),
    }
    if calls := [call for message in messages for call in message.get("tool_calls", ())]:
        whole["tool_calls"] = calls
    return {**lines[-1], "message": whole}


async def _send(
    request: web.Request,
    lines: AsyncIterator[dict[str, Any]],
    joined: Any,
    *,
    stream: bool,
) -> web.StreamResponse:
    if not stream:
        return answer(joined([line async for line in lines]))
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    try:
        async for line in lines:
            await response.write(compact(line) + b"\n")
    except ConnectionError:
        pass
    except Exception as error:
        # The status line is out: the last line tells what went wrong.
        with contextlib.suppress(ConnectionError):
            await response.write(compact(error_body(from_exception(error), "/api/")) + b"\n")
    return response
