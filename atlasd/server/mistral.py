"""Mistral's ``POST /v1/fim/completions``: the server fills the model's template, so a client needs
to know nothing of it. The answer has the shape of chat completions."""

from __future__ import annotations

from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta

from atlasd.completion.request import CompletionRequest
from atlasd.server.body import answer, read
from atlasd.server.chat_reply import Answer
from atlasd.server.choices import Choices, timings, usage
from atlasd.server.middle import middle_generation
from atlasd.server.sampling import SamplingFields, stops
from atlasd.server.services import services
from atlasd.server.sse import event_stream

PATH = "/v1/fim/completions"


class FimRequest(SamplingFields, kw_only=True):
    """What is read of the body. Other keys are ignored."""

    prompt: str
    suffix: str | None = None
    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    random_seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None


async def fim_completions(request: web.Request) -> web.StreamResponse:
    """The text between prompt and suffix, whole or as events."""
    asked = await read(request, FimRequest)
    if asked.seed is None:
        asked.seed = asked.random_seed
    daemon = services(request)
    async with daemon.use() as serving:
        cursor = CompletionRequest(
            prefix=asked.prompt,
            suffix=asked.suffix or "",
            gather=False,
            max_tokens=asked.max_tokens or daemon.config.completion.max_tokens,
            sampling=asked.sampling(serving.tokenizer.vocab_size)[0],
            stop=stops(asked.stop),
            trim=False,
            client="fim",
            trusted=asked.learned,
            drafting=asked.drafting,
        )
        async with Choices([middle_generation(serving, cursor)], daemon.meter) as told:
            if asked.stream:
                return await _stream(request, serving.name, told)
            return await _whole(serving.name, told)


async def _whole(model: str, told: Choices) -> web.StreamResponse:
    text = "".join([chunk.text async for _, chunk in told.chunks() if chunk is not None])
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": told.finish_reason(0),
    }
    body = Answer(model, "chat.completion").with_(
        [choice], usage=usage(told.stats), timings=timings(told.stats)
    )
    return answer(body)


async def _stream(request: web.Request, model: str, told: Choices) -> web.StreamResponse:
    head = Answer(model, "chat.completion.chunk")
    async with event_stream(request, PATH) as events:
        async for _, chunk in told.chunks():
            delta: dict[str, Any] = {"content": chunk.text if chunk else ""}
            reason = None if chunk else told.finish_reason(0)
            choice = {"index": 0, "delta": delta, "finish_reason": reason}
            # Mistral's last event carries the usage without being asked.
            more = {} if chunk else {"usage": usage(told.stats)}
            await events.send(head.with_([choice], **more))
        await events.done()
    return events.response
