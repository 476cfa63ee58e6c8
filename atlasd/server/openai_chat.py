"""OpenAI's chat completions: ``POST /v1/chat/completions``."""

from __future__ import annotations

from aiohttp import web

from atlasd.completion.generate import generate
from atlasd.engine.protocol import Priority
from atlasd.server.body import aside, read, sound_path
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
        learn = may_learn(serving, asked)
        meter = daemon.meter
        async with start(serving, asked, talk, prediction, count, meter, learn=learn) as told:
            reply = ChatReply(
                serving.name, told, count, talk.calling, scored=bool(asked.logprobs), learned=learn
            )
            if not asked.stream:
                return await reply.whole()
            with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return await reply.stream(request, PATH, with_usage=with_usage)


def may_learn(serving: Serving, asked: ChatRequest) -> bool:
    """Whether anything may be kept of a conversation: the client may say no, and so does the file
    it is about if that is ignored or never read."""
    if not asked.path:
        return asked.learned
    path = sound_path(asked.path, "path")
    root = sound_path(asked.repository, "repository") if asked.repository else None
    return asked.learned and serving.completer.keeps(path, root)


def start(
    serving: Serving,
    asked: ChatRequest,
    talk: Conversation,
    prediction: list[int],
    count: int,
    meter: Meter,
    *,
    learn: bool,
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
                learn=learn,
                grammar=talk.grammar,
            )
            for sampling in asked.sampling(serving.tokenizer.vocab_size, count)
        ],
        meter,
    )
