"""OpenAI's chat completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

from aiohttp import web

from atlasd.completion.generate import generate
from atlasd.engine.protocol import Priority
from atlasd.server.body import aside, read
from atlasd.server.chat_reply import ChatReply
from atlasd.server.chat_request import ChatRequest, Conversation, conversation
from atlasd.server.choices import Choices
from atlasd.server.meter import Meter
from atlasd.server.sampling import check_choices, predicted_tokens, room, stops
from atlasd.server.services import Serving, services

PATH = "/v1/chat/completions"


async def chat_completions(request: web.Request) -> web.StreamResponse:
    """Answer a conversation, whole or as events."""
    asked = await read(request, ChatRequest)
    count = check_choices(asked.n)
    daemon = services(request)
    async with daemon.use() as serving:
        talk, prediction = await aside(
            request,
            lambda: (
                conversation(serving, asked),
                predicted_tokens(asked.prediction, serving.tokenizer),
            ),
        )
        async with start(serving, asked, talk, prediction, count, services(request).meter) as told:
            reply = ChatReply(serving.name, told, count, talk.calling, bool(asked.logprobs))
            if not asked.stream:
                return await reply.whole()
            with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return await reply.stream(request, PATH, with_usage=with_usage)


def start(
    serving: Serving,
    asked: ChatRequest,
    talk: Conversation,
    prediction: list[int],
    count: int,
    meter: Meter,
) -> Choices:
    """Begin to decode the choices of a conversation."""
    limit = room(serving, len(talk.prompt), asked.wanted, "messages")
    alternatives = asked.alternatives
    return Choices(
        [
            generate(
                serving.engine,
                serving.tokenizer,
                talk.prompt,
                sampling=sampling,
                max_tokens=limit,
                stop=(*stops(asked.stop), *serving.chat.stop),
                priority=Priority.CHAT,
                prediction=prediction,
                logprobs=alternatives,
                drafting=asked.drafting,
                learn=asked.learned,
                grammar=talk.grammar,
            )
            for sampling in asked.sampling(serving.tokenizer.vocab_size, count)
        ],
        meter,
    )
