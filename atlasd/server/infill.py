"""llama.cpp's ``POST /infill``, for llama.vim and llama.vscode as they are."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from aiohttp import web
from msgspec import Meta

from atlasd.completion.decoding import out_of_time
from atlasd.completion.request import Completion, CompletionRequest, Piece
from atlasd.engine.protocol import Sampling
from atlasd.server.body import answer, read, sound_path
from atlasd.server.choices import Choices
from atlasd.server.errors import HTTPError, invalid
from atlasd.server.llamacpp_body import Ended, body, select
from atlasd.server.middle import middle_generation, prefill
from atlasd.server.sampling import SamplingFields, check_choices, stops
from atlasd.server.services import Serving, services
from atlasd.server.sse import event_stream

PATH = "/infill"

MOST_TOKENS = 1 << 20
"""More than any slot holds."""


class Extra(msgspec.Struct):
    """A piece of context from another place."""

    text: str
    filename: str | None = None


class InfillRequest(SamplingFields, kw_only=True):
    """What is read of the body. Other keys (``samplers``, ``id_slot``, …) are ignored."""

    input_prefix: str
    input_suffix: str
    input_extra: list[Extra] | None = None
    prompt: str | None = None
    """The cursor's line up to the cursor; belongs after ``input_prefix``."""
    n_predict: Annotated[int, Meta(ge=-1)] | None = None
    max_tokens: Annotated[int, Meta(ge=-1)] | None = None
    n_indent: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    n_cmpl: int | None = None
    response_fields: list[str] | None = None
    t_max_predict_ms: float | None = None
    trim: bool | None = None
    """atlasd's own: false gives the model's text as it comes."""
    path: str | None = None
    """atlasd's own: the file, so that context can be gathered from its repository."""

    @property
    def before(self) -> str:
        return self.input_prefix + (self.prompt or "")

    @property
    def pieces(self) -> tuple[Piece, ...]:
        return tuple(Piece(extra.filename or "", extra.text) for extra in self.input_extra or ())

    def limit(self, default: int) -> int:
        """Tokens to predict; 0 only warms the cache."""
        wanted = self.n_predict if self.n_predict is not None else self.max_tokens
        return default if wanted is None or wanted < 0 else min(wanted, MOST_TOKENS)


async def infill(request: web.Request) -> web.StreamResponse:
    """What belongs between prefix and suffix."""
    try:
        asked = await read(request, InfillRequest)
    except HTTPError as error:
        raise _in_their_words(error) from None
    count = check_choices(asked.n_cmpl, "n_cmpl")
    daemon = services(request)
    limit = asked.limit(daemon.config.completion.max_tokens)
    async with daemon.use() as serving:
        if asked.seed is None and asked.trim is not False:
            # The same place has the same suggestions, and typing along finds them again.
            asked.seed = 0
        samplings = asked.sampling(serving.tokenizer.vocab_size, count)
        cursor = _request(asked, limit, samplings[0])
        if limit == 0:
            stats = await prefill(serving, cursor)
            daemon.meter.add(stats)
            return _send(asked, [_body(asked, serving, Completion("", "", stats=stats), 0)])
        if asked.stream:
            return await _stream(request, asked, serving, cursor)
        found = await serving.completer.choices(cursor, count) or [Completion("", "")]
        return _send(asked, [_body(asked, serving, one, limit) for one in found])


def _request(asked: InfillRequest, limit: int, sampling: Sampling) -> CompletionRequest:
    return CompletionRequest(
        prefix=asked.before,
        suffix=asked.input_suffix,
        path=sound_path(asked.path, "path") if asked.path else None,
        pieces=asked.pieces,
        gather=asked.path is not None,
        max_tokens=limit,
        sampling=sampling,
        stop=stops(asked.stop),
        trim=asked.trim is not False,
        max_ms=asked.t_max_predict_ms or 0.0,
        client="infill",
        trusted=asked.learned,
        drafting=asked.drafting,
    )


def _send(asked: InfillRequest, bodies: list[dict[str, Any]]) -> web.Response:
    """One object, or a list where several choices were asked for."""
    return answer(bodies if (asked.n_cmpl or 1) > 1 else bodies[0])


async def _stream(
    request: web.Request, asked: InfillRequest, serving: Serving, cursor: CompletionRequest
) -> web.StreamResponse:
    """The text as it comes, untrimmed, then the whole body without it."""
    if (asked.n_cmpl or 1) > 1:
        raise invalid('"n_cmpl" cannot be combined with "stream"', "n_cmpl")
    generation = middle_generation(serving, cursor)
    text, started = "", time.monotonic()
    async with (
        Choices([generation], services(request).meter) as told,
        event_stream(request, PATH) as events,
    ):
        async for _, chunk in told.chunks():
            if chunk is not None and chunk.text:
                text += chunk.text
                await events.send({"index": 0, "content": chunk.text, "stop": False})
            if out_of_time(cursor.max_ms, started, text):
                await generation.finish()
                break
        ended = Completion("", text, finish_reason=told.finish_reason(0), stats=generation.stats)
        last = _body(asked, serving, ended, cursor.max_tokens, generation.stop or "")
        await events.send({**last, "content": ""})
    return events.response


def _body(
    asked: InfillRequest, serving: Serving, done: Completion, limit: int, word: str = ""
) -> dict[str, Any]:
    ended = Ended(inserted(done, asked.input_suffix), done.finish_reason, done.stats, word)
    whole = body(
        serving.name,
        ended,
        limit=limit,
        temperature=asked.temperature or 0.0,
        stop=stops(asked.stop),
    )
    return select({**whole, "source": done.source, "id": done.id}, asked.response_fields)


def inserted(done: Completion, suffix: str) -> str:
    """The text as a client can insert it that knows nothing of text right of the cursor being
    replaced: without what stands there already."""
    right = suffix[: done.replace_right]
    at = done.text.rfind(right) if right else -1
    # What the text says behind the bracket can only be inserted by who replaces the bracket.
    return done.text[:at] if at >= 0 else done.text


def _in_their_words(error: HTTPError) -> HTTPError:
    """llama.cpp words missing keys in its own way, and clients show it."""
    if error.param in ("input_prefix", "input_suffix") and error.message.endswith("required."):
        return invalid(f'"{error.param}" is required', error.param)
    return error
