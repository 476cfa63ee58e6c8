"""Several generations of one request, read as one: which choice said what, and what it all cost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec

from atlasd.completion.generate import Chunk, Generation
from atlasd.engine.protocol import StreamStats
from atlasd.server.errors import HTTPError
from atlasd.server.meter import Meter


class Choices:
    """The ``n`` choices of a request. Leaving the ``async with`` block ends every stream."""

    def __init__(self, generations: Sequence[Generation], meter: Meter) -> None:
        self._generations = generations
        self._meter = meter
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Choices:
        return self

    async def __aexit__(self, *_: object) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for generation in self._generations:
            await generation.aclose()
            self._meter.add(generation.stats, generation.finish_reason)

    async def chunks(self) -> AsyncIterator[tuple[int, Chunk | None]]:
        """``(choice, chunk)`` as they come; ``None`` when a choice is finished."""
        if len(self._generations) == 1:
            async for chunk in self._generations[0]:
                yield 0, chunk
            yield 0, None
            return
        queue: asyncio.Queue[tuple[int, Chunk | Exception | None]] = asyncio.Queue()
        self._readers = [
            asyncio.create_task(_read(index, generation, queue))
            for index, generation in enumerate(self._generations)
        ]
        left = len(self._readers)
        while left:
            index, said = await queue.get()
            if isinstance(said, Exception):
                raise said
            left -= said is None
            yield index, said

    def finish_reason(self, index: int) -> str:
        """``stop`` or ``length``. Raises where the stream was ended from elsewhere (``pause``)."""
        reason = self._generations[index].finish_reason
        if reason == "cancelled":
            raise HTTPError(503, "The model was unloaded meanwhile.", code="model_unloaded")
        return "length" if reason == "length" else "stop"

    @property
    def stats(self) -> list[StreamStats]:
        return [generation.stats for generation in self._generations]


async def _read(
    index: int,
    generation: Generation,
    queue: asyncio.Queue[tuple[int, Chunk | Exception | None]],
) -> None:
    try:
        async for chunk in generation:
            queue.put_nowait((index, chunk))
        queue.put_nowait((index, None))
    except Exception as error:
        queue.put_nowait((index, error))


def usage(stats: Sequence[StreamStats], per_prompt: int | None = None) -> dict[str, Any]:
    """OpenAI's ``usage``. A prompt counts once however many choices it has: ``per_prompt`` of
    them, in a row; None is all, of one prompt."""
    each = per_prompt or max(1, len(stats))
    groups = [stats[at : at + each] for at in range(0, len(stats), each)]
    prompt = sum(max(one.prompt_tokens for one in group) for group in groups)
    cached = sum(max(one.cached_tokens for one in group) for group in groups)
    output = sum(one.output_tokens for one in stats)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": output,
        "total_tokens": prompt + output,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {
            "accepted_prediction_tokens": sum(one.prediction_accepted for one in stats),
            "rejected_prediction_tokens": sum(one.prediction_rejected for one in stats),
        },
    }


def timings(stats: Sequence[StreamStats]) -> dict[str, Any]:
    """llama.cpp's ``timings`` with its drafting counts, and what atlasd knows beyond them."""
    total = _total(stats)
    prompt_ms, predicted_ms = sum(map(prompt_time, stats)), total.decode_ms
    return {
        "cache_n": total.cached_tokens,
        "prompt_n": total.prefilled_tokens,
        "prompt_ms": round(prompt_ms, 3),
        "prompt_per_token_ms": _ratio(prompt_ms, total.prefilled_tokens),
        "prompt_per_second": _ratio(1000 * total.prefilled_tokens, prompt_ms),
        "predicted_n": total.output_tokens,
        "predicted_ms": round(predicted_ms, 3),
        "predicted_per_token_ms": _ratio(predicted_ms, total.output_tokens),
        "predicted_per_second": _ratio(1000 * total.output_tokens, predicted_ms),
        "draft_n": sum(total.drafted.values()),
        "draft_n_accepted": sum(total.accepted.values()),
        "queue_ms": round(total.queue_ms, 3),
        "steps": total.steps,
        "drafted": total.drafted,
        "accepted": total.accepted,
    }


def prompt_time(stats: StreamStats) -> float:
    """Milliseconds that went into reading the prompt. Of one that was cached, the last token is
    read in the first step of decoding: its share of that."""
    if stats.prefill_ms or not stats.rows:
        return stats.prefill_ms
    return stats.decode_ms * min(1.0, stats.prefilled_tokens / stats.rows)


def _total(stats: Sequence[StreamStats]) -> StreamStats:
    if len(stats) == 1:
        return stats[0]
    numbers = (
        "queue_ms",
        "prefill_ms",
        "decode_ms",
        "draft_ms",
        "prompt_tokens",
        "cached_tokens",
        "prefilled_tokens",
        "output_tokens",
        "foreseen",
        "steps",
        "rows",
    )
    sums: dict[str, Any] = {name: sum(getattr(one, name) for one in stats) for name in numbers}
    for name in ("drafted", "accepted"):
        merged: dict[str, int] = {}
        for one in stats:
            for source, count in getattr(one, name).items():
                merged[source] = merged.get(source, 0) + count
        sums[name] = merged
    return msgspec.convert(sums, StreamStats)


def _ratio(amount: float, count: float) -> float:
    return round(amount / count, 3) if count else 0.0
