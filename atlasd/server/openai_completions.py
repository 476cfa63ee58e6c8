"""OpenAI's text completions: ``POST /v1/completions``, with ``suffix`` for text in the middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from aiohttp import web
from msgspec import Meta

from atlasd.completion.generate import Generation, generate
from atlasd.completion.request import CompletionRequest
from atlasd.engine.protocol import Priority
from atlasd.server import tabby
from atlasd.server.body import aside, read
from atlasd.server.choices import Choices
from atlasd.server.constraints import HeldFields
from atlasd.server.errors import invalid
from atlasd.server.middle import middle_generation
from atlasd.server.sampling import (
    Prediction,
    StreamOptions,
    check_choices,
    predicted_tokens,
    room,
    stops,
)
from atlasd.server.services import Serving, services
from atlasd.server.text_reply import TextReply

PATH = "/v1/completions"

DEFAULT_TOKENS = 16
"""OpenAI's default, which clients count on."""

MOST_STREAMS = 64


class CompletionsRequest(HeldFields, kw_only=True):
    """What is read of the body. Other keys are ignored."""

    prompt: str | list[str | int | list[int]] = ""
    suffix: str | None = None
    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=-1)] | None = None
    n: int | None = None
    best_of: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    echo: bool | None = None
    prediction: Prediction | None = None

    @property
    def wanted(self) -> int | None:
        """Tokens asked for; None for as many as fit (-1), and where nothing is said."""
        return None if self.max_tokens is None or self.max_tokens < 0 else self.max_tokens

    @property
    def alternatives(self) -> int:
        """As ``generate`` takes it: -1 for no log-probabilities."""
        return -1 if self.logprobs is None else self.logprobs


@dataclass(frozen=True)
class Prompt:
    """One prompt: its tokens, and its text where the answer repeats it."""

    tokens: list[int]
    text: str


async def completions(request: web.Request) -> web.StreamResponse:
    """Continue one or several prompts, whole or as events. Tabby's clients ask here as well."""
    if tabby.meant(await request.read()):
        return await tabby.completions(request)
    asked = await read(request, CompletionsRequest)
    count = check_choices(asked.n)
    _check(asked)
    daemon = services(request)
    async with daemon.use() as serving:
        prediction = await aside(
            request, lambda: predicted_tokens(asked.prediction, serving.tokenizer)
        )
        if asked.suffix:
            echoes = [""] * count
            default = daemon.config.completion.max_tokens
            started = _in_the_middle(serving, asked, prediction, count, default)
        else:
            given = _given(asked)
            prompts = await aside(request, lambda: [_prompt(serving, one) for one in given])
            if len(prompts) * count > MOST_STREAMS:
                raise invalid(f"At most {MOST_STREAMS} choices over all prompts.", "prompt")
            echoes = [one.text if asked.echo else "" for one in prompts for _ in range(count)]
            started = _after(serving, asked, prompts, prediction, count)
        async with Choices(started, daemon.meter) as told:
            reply = TextReply(serving.name, told, echoes, count, asked.logprobs is not None)
            if not asked.stream:
                return await reply.whole()
            with_usage = bool(asked.stream_options and asked.stream_options.include_usage)
            return await reply.stream(request, PATH, with_usage=with_usage)


def _check(asked: CompletionsRequest) -> None:
    if asked.best_of is not None and asked.best_of != (asked.n or 1):
        raise invalid("best_of is not supported by this server.", "best_of", "not_supported")
    if asked.max_tokens == 0:
        raise invalid("max_tokens must be at least 1.", "max_tokens")
    if asked.echo and asked.logprobs is not None:
        raise invalid("echo cannot be combined with logprobs.", "echo", "not_supported")
    if asked.suffix and asked.echo:
        raise invalid("echo cannot be combined with suffix.", "echo")
    if asked.suffix and (asked.grammar or asked.schema is not None):
        raise invalid("suffix cannot be combined with a grammar or a schema.", "suffix")
    if asked.suffix and not isinstance(asked.prompt, str):
        raise invalid("suffix needs the prompt to be one text.", "prompt")


def _given(asked: CompletionsRequest) -> list[str | list[int]]:
    """The prompts one by one: a text, texts, tokens, or lists of tokens."""
    if isinstance(asked.prompt, str):
        return [asked.prompt]
    numbers = [part for part in asked.prompt if isinstance(part, int)]
    if numbers and len(numbers) < len(asked.prompt):
        raise invalid("prompt: texts and tokens cannot be mixed in one list.", "prompt")
    if numbers:
        return [numbers]
    return [part for part in asked.prompt if not isinstance(part, int)] or [""]


def _prompt(serving: Serving, given: str | list[int]) -> Prompt:
    tokenizer = serving.tokenizer
    if isinstance(given, str):
        # Clients such as Zed fill a model's own template and send its special tokens as text.
        # A model needs at least one token to go on from.
        return Prompt(serving.encode_prompt(given) or list(tokenizer.eos_ids[:1]), given)
    if not given:
        raise invalid("prompt: an empty list of tokens.", "prompt")
    if wrong := [token for token in given if not 0 <= token < tokenizer.vocab_size]:
        raise invalid(f"prompt: token {wrong[0]} is not in the vocabulary.", "prompt")
    return Prompt(given, tokenizer.decode(given))


def _after(
    serving: Serving,
    asked: CompletionsRequest,
    prompts: list[Prompt],
    prediction: list[int],
    count: int,
) -> list[Generation]:
    wanted = DEFAULT_TOKENS if asked.max_tokens is None else asked.wanted
    limits = [room(serving, len(prompt.tokens), wanted) for prompt in prompts]
    grammar = asked.held()
    samplings = asked.sampling(serving.tokenizer.vocab_size, count)
    return [
        generate(
            serving.engine,
            serving.tokenizer,
            prompt.tokens,
            sampling=sampling,
            max_tokens=limit,
            stop=stops(asked.stop),
            priority=Priority.CHAT,
            prediction=prediction,
            logprobs=asked.alternatives,
            drafting=asked.drafting,
            learn=asked.learned,
            grammar=grammar,
        )
        for prompt, limit in zip(prompts, limits, strict=True)
        for sampling in samplings
    ]


def _in_the_middle(
    serving: Serving, asked: CompletionsRequest, prediction: list[int], count: int, default: int
) -> list[Generation]:
    assert isinstance(asked.prompt, str)
    assert asked.suffix is not None
    requests = [
        CompletionRequest(
            prefix=asked.prompt,
            suffix=asked.suffix,
            gather=False,
            max_tokens=asked.wanted or (serving.slot_tokens if asked.max_tokens else default),
            sampling=sampling,
            stop=stops(asked.stop),
            trim=False,
            client="completions",
            trusted=asked.learned,
            drafting=asked.drafting,
        )
        for sampling in asked.sampling(serving.tokenizer.vocab_size, count)
    ]
    return [
        middle_generation(serving, one, prediction=prediction, logprobs=asked.alternatives)
        for one in requests
    ]
