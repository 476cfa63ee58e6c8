"""Ollama's ``POST /api/generate`` and ``POST /api/chat``, whole or as lines of JSON."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

import msgspec
from aiohttp import web

from atlasd.completion.calls import CallReader, Said
from atlasd.completion.generate import Generation, generate
from atlasd.completion.request import CompletionRequest
from atlasd.engine.protocol import Priority
from atlasd.server.body import answer, aside, explain, read
from atlasd.server.chat_message import Message
from atlasd.server.chat_request import ChatMessage, ChatRequest, Conversation, conversation
from atlasd.server.choices import Choices, prompt_time
from atlasd.server.constraints import ToolField
from atlasd.server.errors import invalid
from atlasd.server.middle import middle_generation
from atlasd.server.ndjson import send_lines
from atlasd.server.ollama_models import when
from atlasd.server.sampling import SamplingFields, room, stops
from atlasd.server.services import Serving, services

LOADED = {"done": True, "done_reason": "load"}
"""Clients load a model by asking it for nothing."""

WHOLE = ("num_predict", "top_k", "seed")

Format = Literal["", "json"] | dict[str, Any]


class Options(SamplingFields, kw_only=True):
    """What is read of ``options``."""

    num_predict: int | None = None
    stop: str | list[str] | None = None

    @property
    def wanted(self) -> int | None:
        """Tokens asked for; None, as Ollama takes 0 and less: as many as fit."""
        return self.num_predict if self.num_predict and self.num_predict > 0 else None


class _Asked(msgspec.Struct, kw_only=True):
    """Ollama reads a null as if the key were not there."""

    model: str | None = None
    stream: bool | None = None
    format: Format | None = None
    options: dict[str, Any] | None = None

    @property
    def chosen(self) -> Options:
        """The options; whole numbers may be written with a point, as Ollama reads them."""
        given = {
            name: int(value) if name in WHOLE and isinstance(value, float) else value
            for name, value in (self.options or {}).items()
        }
        try:
            return msgspec.convert(given, Options, str_keys=True)
        except msgspec.ValidationError as error:
            message, param = explain(str(error))
            raise invalid(f"options.{message}", f"options.{param}") from None

    def held(self) -> ChatRequest:
        """The format as the other APIs have it, in a request without anything else."""
        nothing = [ChatMessage("user", "")]
        if not self.format:
            return ChatRequest(messages=nothing)
        schema = {"type": "object"} if self.format == "json" else self.format
        assert isinstance(schema, dict)
        return ChatRequest(messages=nothing, json_schema=schema)


class GenerateRequest(_Asked, kw_only=True):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    raw: bool | None = None
    images: list[Any] | None = None


class OllamaMessage(ChatMessage, kw_only=True):
    images: list[Any] | None = None


class OllamaChatRequest(_Asked, kw_only=True):
    messages: list[OllamaMessage] | None = None
    tools: list[ToolField] | None = None


async def generate_text(request: web.Request) -> web.StreamResponse:
    """What follows a prompt, or belongs between it and a suffix."""
    asked = await read(request, GenerateRequest)
    _refuse_images(asked.images)
    daemon = services(request)
    async with daemon.use() as serving:
        if not asked.prompt and not asked.suffix:
            return answer({**_head(serving), "response": "", **LOADED})
        if asked.suffix:
            generation = _in_the_middle(serving, asked, daemon.config.completion.max_tokens)
        else:
            talk = await aside(request, lambda: _prompt(serving, asked))
            generation = _after(serving, asked, talk)
        async with Choices([generation], daemon.meter) as told:
            lines = _texts(serving, told)
            return await _send(request, lines, _joined_text, stream=asked.stream is not False)


def _refuse_images(images: list[Any] | None) -> None:
    if images:
        raise invalid("images: the models served here read text only.", "images")


def _prompt(serving: Serving, asked: GenerateRequest) -> Conversation:
    if asked.raw:
        tokens = serving.encode_prompt(asked.prompt or "")
        return Conversation(tokens, asked.held().held(), None)
    messages = [ChatMessage("system", asked.system)] if asked.system else []
    messages.append(ChatMessage("user", asked.prompt or ""))
    held = msgspec.structs.replace(asked.held(), messages=messages)
    return conversation(serving, held)


def _after(serving: Serving, asked: _Asked, talk: Conversation) -> Generation:
    options = asked.chosen
    return generate(
        serving.engine,
        serving.tokenizer,
        talk.prompt,
        sampling=options.sampling(serving.tokenizer.vocab_size)[0],
        max_tokens=room(serving, len(talk.prompt), options.wanted),
        stop=(*stops(options.stop), *serving.chat.stop),
        priority=Priority.CHAT,
        drafting=options.drafting,
        learn=options.learned,
        grammar=talk.grammar,
    )


def _in_the_middle(serving: Serving, asked: GenerateRequest, default: int) -> Generation:
    options = asked.chosen
    cursor = CompletionRequest(
        prefix=asked.prompt or "",
        suffix=asked.suffix or "",
        gather=False,
        max_tokens=options.wanted or default,
        sampling=options.sampling(serving.tokenizer.vocab_size)[0],
        stop=stops(options.stop),
        trim=False,
        client="ollama",
        trusted=options.learned,
        drafting=options.drafting,
    )
    return middle_generation(serving, cursor)


async def chat(request: web.Request) -> web.StreamResponse:
    """The answer to a conversation; calls come whole."""
    asked = await read(request, OllamaChatRequest)
    for message in asked.messages or ():
        _refuse_images(message.images)
    daemon = services(request)
    async with daemon.use() as serving:
        if not asked.messages:
            return answer({**_line(serving, {"content": ""}), **LOADED})
        held = msgspec.structs.replace(asked.held(), messages=[*asked.messages], tools=asked.tools)
        talk = await aside(request, lambda: conversation(serving, held))
        async with Choices([_after(serving, asked, talk)], daemon.meter) as told:
            reader = CallReader(talk.calling) if talk.calling else None
            lines = _messages(serving, told, Message(reader))
            return await _send(request, lines, _joined_message, stream=asked.stream is not False)


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
        "prompt_eval_duration": int(prompt_time(stats) * 1e6),
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
    return await send_lines(request, lines, "/api/")
