"""Filling in the middle as the model writes it, untrimmed: for APIs that stream or score it."""

from __future__ import annotations

from collections.abc import Sequence

from atlasd.completion.generate import Generation, generate
from atlasd.completion.request import CompletionRequest
from atlasd.engine.protocol import StreamStats
from atlasd.server.sampling import room
from atlasd.server.services import Serving


def middle_generation(
    serving: Serving,
    request: CompletionRequest,
    *,
    prediction: Sequence[int] = (),
    logprobs: int = -1,
) -> Generation:
    """Start decoding what belongs between prefix and suffix."""
    prompt = serving.completer.raw_prompt(request)
    return generate(
        serving.engine,
        serving.tokenizer,
        prompt.tokens,
        sampling=request.sampling,
        max_tokens=room(serving, len(prompt.tokens), request.max_tokens),
        stop=(*request.stop, *prompt.stop),
        stop_tokens=prompt.stop_tokens,
        language=request.language,
        prediction=prediction,
        logprobs=logprobs,
    )


async def prefill(serving: Serving, request: CompletionRequest) -> StreamStats:
    """Only compute the prompt, so that a request that starts with it finds it in a slot."""
    async with middle_generation(serving, request) as generation:
        async for _ in generation:
            await generation.finish()
            break
        return generation.stats
