"""Filling in the middle as the model writes it, untrimmed: for APIs that stream or score it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
    built = serving.completer.build(request)
    prompt = built.prompt
    # Token healing chooses a token anew, which a streamed answer could not take back.
    tokens = [*prompt.tokens, *prompt.taken_back]
    return generate(
        serving.engine,
        serving.tokenizer,
        tokens,
        sampling=request.sampling,
        max_tokens=room(serving, len(tokens), request.max_tokens),
        stop=(*request.stop, *prompt.stop),
        stop_tokens=prompt.stop_tokens,
        repository=built.repository,
        language=built.language.id,
        prediction=prediction,
        logprobs=logprobs,
        drafting=request.drafting,
        learn=built.trusted,
        prefix_end=prompt.prefix_end,
    )


async def prefill(serving: Serving, request: CompletionRequest) -> StreamStats:
    """Only compute the prompt, so that a request that starts with it finds it in a slot."""
    # The engine decodes at least one token, which is thrown away.
    async with middle_generation(serving, replace(request, max_tokens=1)) as generation:
        async for _ in generation:
            await generation.finish()
            break
        return generation.stats
