"""What llama.cpp's server tells of itself, and its work with tokens: ``/props``, ``/slots``,
``/tokenize``, ``/detokenize``, ``/apply-template``. llama.vim and llama.vscode ask for these."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from atlasd import __version__
from atlasd.completion.tools import knows_tools, with_tools_told
from atlasd.server.body import answer, aside, read
from atlasd.server.chat_request import ChatMessage
from atlasd.server.constraints import ToolField, offered
from atlasd.server.errors import HTTPError, invalid
from atlasd.server.services import Serving, services

if TYPE_CHECKING:
    from atlasd.models.tokenizer import Tokenizer


class TokenizeRequest(msgspec.Struct):
    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeRequest(msgspec.Struct):
    tokens: list[int]


class TemplateRequest(msgspec.Struct):
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    tools: list[ToolField] | None = None
    add_generation_prompt: bool = True


def _known(request: web.Request) -> Serving:
    """The model as it was last loaded: this needs no engine."""
    serving = services(request).serving
    if serving is None:
        raise HTTPError(503, "Loading model", code="model_loading", retry_after=1)
    return serving


async def props(request: web.Request) -> web.Response:
    """What is served, and how."""
    serving, daemon = _known(request), services(request)
    return answer(
        {
            "default_generation_settings": {
                "n_ctx": serving.slot_tokens,
                "params": {"temperature": 0.0, "n_predict": -1, "stop": []},
            },
            "total_slots": serving.slots,
            "model_alias": serving.name,
            "model_path": serving.name,
            "chat_template": serving.chat.source,
            "modalities": {"vision": False, "audio": False},
            "build_info": f"atlasd {__version__}",
            "is_sleeping": daemon.state == "stopped",
        }
    )


async def slots(request: web.Request) -> web.Response:
    """Each slot, and whether a stream is in it."""
    serving = _known(request)
    busy = (await services(request).engine_status() or {}).get("streams", 0)
    return answer(
        [
            {"id": number, "n_ctx": serving.slot_tokens, "is_processing": number < busy}
            for number in range(serving.slots)
        ]
    )


async def tokenize(request: web.Request) -> web.Response:
    """The tokens of a text."""
    asked = await read(request, TokenizeRequest)
    tokenizer = _known(request).tokenizer
    special = asked.parse_special
    tokens = await aside(request, lambda: tokenizer.encode(asked.content, special=special))
    if asked.add_special:
        tokens = [*tokenizer.prefix_ids, *tokens]
    if not asked.with_pieces:
        return answer({"tokens": tokens})
    return answer({"tokens": [{"id": id, "piece": _piece(_bytes(tokenizer, id))} for id in tokens]})


def _bytes(tokenizer: Tokenizer, id: int) -> bytes:
    """What a token stands for; a control token is spelled out, as llama.cpp does it."""
    return tokenizer.token_bytes(id) or (tokenizer.token_text(id) or "").encode()


def _piece(data: bytes) -> str | list[int]:
    """A token's text, or its bytes where they are no text by themselves."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return list(data)


async def detokenize(request: web.Request) -> web.Response:
    """The text of tokens."""
    asked = await read(request, DetokenizeRequest)
    tokenizer = _known(request).tokenizer
    if wrong := [token for token in asked.tokens if not 0 <= token < tokenizer.vocab_size]:
        raise invalid(f"tokens: {wrong[0]} is not in the vocabulary.", "tokens")
    data = await aside(
        request, lambda: b"".join(_bytes(tokenizer, token) for token in asked.tokens)
    )
    return answer({"content": data.decode("utf-8", "replace")})


async def apply_template(request: web.Request) -> web.Response:
    """The prompt of a conversation, as text."""
    asked = await read(request, TemplateRequest)
    serving = _known(request)
    tools = offered(asked.tools)
    messages: list[dict[str, Any]] = [
        message.plain(index) for index, message in enumerate(asked.messages)
    ]
    told = [tool.told for tool in tools]
    if not knows_tools(serving.tokenizer.chat_template):
        messages, told = with_tools_told(messages, tools), []
    prompt = serving.chat.render(
        messages, tools=told, add_generation_prompt=asked.add_generation_prompt
    )
    return answer({"prompt": prompt})
