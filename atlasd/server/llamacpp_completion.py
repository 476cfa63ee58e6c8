"""llama.cpp's ``POST /completion``: a prompt goes on, in the prompt's own format."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta

from atlasd.completion.generate import Generation, generate
from atlasd.engine.protocol import Priority
from atlasd.server.body import answer, aside, read
from atlasd.server.choices import Choices
from atlasd.server.constraints import HeldFields
from atlasd.server.errors import invalid
from atlasd.server.llamacpp_body import Ended, body, select
from atlasd.server.sampling import room, stops
from atlasd.server.services import Serving, services
from atlasd.server.sse import event_stream

PATH = "/completion"


class CompletionBody(HeldFields, kw_only=True):
    """What is read of the body. Other keys (``samplers``, ``id_slot``, …) are ignored."""

    prompt: str | list[str | int]
    n_predict: Annotated[int, Meta(ge=-2)] | None = None
    max_tokens: Annotated[int, Meta(ge=-1)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    response_fields: list[str] | None = None
    return_tokens: bool | None = None

    @property
    def limit(self) -> int | None:
        """Tokens to predict; None: as many as fit. 0 only warms the cache."""
        wanted = self.n_predict if self.n_predict is not None else self.max_tokens
        return None if wanted is None or wanted < 0 else wanted


async def completion(request: web.Request) -> web.StreamResponse:
    """The text after the prompt, whole or as events."""
    asked = await read(request, CompletionBody)
    daemon = services(request)
    async with daemon.use() as serving:
        prompt = await aside(request, lambda: _tokens(serving, asked.prompt))
        generation = _start(serving, asked, prompt)
        async with Choices([generation], daemon.meter) as told:
            if asked.stream:
                return await _stream(request, asked, serving, told, generation)
            text = "".join([chunk.text async for _, chunk in told.chunks() if chunk is not None])
            return answer(_ended(asked, serving, told, generation, text))


def _start(serving: Serving, asked: CompletionBody, prompt: list[int]) -> Generation:
    tokens = prompt or list(serving.tokenizer.eos_ids[:1])
    return generate(
        serving.engine,
        serving.tokenizer,
        tokens,
        sampling=asked.sampling(serving.tokenizer.vocab_size)[0],
        # The engine decodes at least one token; of none asked for, it is thrown away.
        max_tokens=max(1, room(serving, len(tokens), asked.limit)),
        stop=stops(asked.stop),
        priority=Priority.CHAT,
        drafting=asked.drafting,
        learn=asked.learned,
        grammar=asked.held(),
    )


def _tokens(serving: Serving, prompt: str | list[str | int]) -> list[int]:
    """A text, or texts and tokens one after the other. Control tokens in texts are meant."""
    if isinstance(prompt, str):
        return serving.encode_prompt(prompt)
    tokens: list[int] = []
    for index, part in enumerate(prompt):
        if isinstance(part, int):
            if not 0 <= part < serving.tokenizer.vocab_size:
                raise invalid(f"prompt: token {part} is not in the vocabulary.", "prompt")
            tokens.append(part)
        elif index:
            tokens += serving.tokenizer.encode(part, special=True)
        else:
            tokens += serving.encode_prompt(part)
    return tokens


async def _stream(
    request: web.Request,
    asked: CompletionBody,
    serving: Serving,
    told: Choices,
    generation: Generation,
) -> web.StreamResponse:
    async with event_stream(request, PATH) as events:
        async for _, chunk in told.chunks():
            if chunk is not None and chunk.text and asked.limit != 0:
                await events.send({"index": 0, "content": chunk.text, "stop": False})
        await events.send({**_ended(asked, serving, told, generation, ""), "stop": True})
    return events.response


def _ended(
    asked: CompletionBody, serving: Serving, told: Choices, generation: Generation, text: str
) -> dict[str, object]:
    nothing = asked.limit == 0
    done = Ended(
        "" if nothing else text, told.finish_reason(0), generation.stats, generation.stop or ""
    )
    whole = body(
        serving.name,
        done,
        limit=-1 if asked.limit is None else asked.limit,
        temperature=asked.temperature or 0.0,
        stop=stops(asked.stop),
    )
    if asked.return_tokens and not nothing:
        whole["tokens"] = generation.tokens
    return select(whole, asked.response_fields)
