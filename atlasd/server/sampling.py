"""The request keys that decide how tokens are chosen, shared by every API that generates."""

from __future__ import annotations

import secrets
from typing import Annotated

import msgspec
from msgspec import Meta

from atlasd.completion.ports import TextTokenizer
from atlasd.engine.protocol import Sampling
from atlasd.server.errors import invalid
from atlasd.server.services import Serving

SEVERAL_TEMPERATURE = 0.8
"""Temperature where several choices are asked for and none is given: at 0 all would be equal."""

MOST_CHOICES = 16

MOST_STOPS = 256
"""Stop strings of a request: each is looked for at every token."""

ANY_SEED = -1
"""llama.cpp's and Ollama's clients say this for "any"."""

LEAST_TOP_P = 1e-6

NEVER = -100.0
"""The bias at which OpenAI says that a token is never chosen."""

Fraction = Annotated[float, Meta(ge=0, le=1)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]


class SamplingFields(msgspec.Struct, kw_only=True):
    """OpenAI's sampling keys and llama.cpp's further ones. ``None`` is the same as unset."""

    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    top_p: Fraction | None = None
    top_k: Annotated[int, Meta(ge=-1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    repeat_penalty: Annotated[float, Meta(ge=0, le=10)] | None = None
    """llama.cpp's and Ollama's name of the same; Ollama's 0 means none, as 1 does."""
    logit_bias: dict[int, Bias] | list[tuple[int, Bias | bool]] | None = None
    """By token as OpenAI has it, or llama.cpp's pairs, where ``false`` is never."""
    seed: int | None = None
    lookahead: int | None = msgspec.field(default=None, name="speculative.n_max")
    """llama.cpp's ``speculative.n_max``. Lookahead is the controller's business, so only 0 is
    heeded: it switches drafting off for this request."""

    learn: bool | None = None
    """atlasd's own: false keeps nothing of the request and its answer."""

    @property
    def drafting(self) -> bool:
        return self.lookahead != 0

    @property
    def learned(self) -> bool:
        """Whether it may be learned from and stored."""
        return self.learn is not False

    def sampling(self, vocab_size: int, choices: int = 1) -> list[Sampling]:
        """One way of sampling per choice. Greedy unless a temperature is given, because that is
        what suits code; without a seed every request draws its own."""
        bias = _by_token(self.logit_bias or {})
        if wrong := [token for token in bias if not 0 <= token < vocab_size]:
            raise invalid(
                f"logit_bias: token {wrong[0]} is not in the vocabulary (0 to {vocab_size - 1}).",
                "logit_bias",
            )
        temperature = self.temperature
        if temperature is None:
            temperature = SEVERAL_TEMPERATURE if choices > 1 else 0.0
        # Greedy decoding needs no seed, and what needs none is found again in the cache.
        drawn = secrets.randbits(63) if temperature > 0 else 0
        seed = drawn if self.seed is None or self.seed == ANY_SEED else self.seed & (2**63 - 1)
        shared = Sampling(
            temperature=temperature,
            # Clients say 0 for the likeliest token alone.
            top_p=1.0 if self.top_p is None else max(self.top_p, LEAST_TOP_P),
            # Any number is meant by "all"; the engine takes no larger ones than it can count.
            top_k=min(max(0, self.top_k or 0), vocab_size),
            min_p=self.min_p or 0.0,
            repetition_penalty=self.repetition_penalty or self.repeat_penalty or 1.0,
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            logit_bias=bias,
            seed=seed,
        )
        return [msgspec.structs.replace(shared, choice=index) for index in range(choices)]


def _by_token(given: dict[int, float] | list[tuple[int, float | bool]]) -> dict[int, float]:
    if isinstance(given, dict):
        return given
    return {
        token: NEVER if bias is False else float(bias) for token, bias in given if bias is not True
    }


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class TextPart(msgspec.Struct):
    """A part of a message. Only text parts can be read by the models served here."""

    type: str = "text"
    text: str | None = None


class Prediction(msgspec.Struct):
    """OpenAI's ``prediction``: text that the answer is expected to resemble."""

    content: str | list[TextPart]
    type: str = "content"


def predicted_tokens(prediction: Prediction | None, tokenizer: TextTokenizer) -> list[int]:
    """The tokens to draft from; none without a prediction."""
    if prediction is None:
        return []
    if prediction.type != "content":
        raise invalid('prediction.type: only "content" is known.', "prediction.type")
    return tokenizer.encode(joined(prediction.content, "prediction.content"))


def joined(content: str | list[TextPart] | None, param: str) -> str:
    """The text of a content that may come in parts."""
    if content is None or isinstance(content, str):
        return content or ""
    for index, part in enumerate(content):
        if part.type not in ("text", "input_text") or part.text is None:
            raise invalid(
                f"{param}[{index}]: only text parts can be read, not {part.type}.",
                f"{param}[{index}]",
            )
    return "".join(part.text or "" for part in content)


def stops(stop: str | list[str] | None) -> tuple[str, ...]:
    """Different stop strings as a tuple; empty ones mean nothing."""
    several = [stop] if isinstance(stop, str) else stop or []
    different = tuple(dict.fromkeys(one for one in several if one))
    if len(different) > MOST_STOPS:
        raise invalid(f"stop: at most {MOST_STOPS} strings can be given.", "stop")
    return different


def room(serving: Serving, prompt_tokens: int, wanted: int | None, param: str = "prompt") -> int:
    """How many tokens may be generated after the prompt: what is wanted, within the slot."""
    left = serving.slot_tokens - prompt_tokens
    if left < 1:
        raise invalid(
            f"The prompt has {prompt_tokens} tokens; {serving.name} takes at most"
            f" {serving.slot_tokens - 1} here.",
            param,
            "context_length_exceeded",
        )
    return left if wanted is None else min(wanted, left)


def check_choices(count: int | None, param: str = "n") -> int:
    """The number of choices, within bounds."""
    if count is None:
        return 1
    if not 1 <= count <= MOST_CHOICES:
        raise invalid(f"{param}: 1 to {MOST_CHOICES} choices can be asked for.", param)
    return count
