"""The body that llama.cpp answers ``/infill`` and ``/completion`` with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from atlasd.engine.protocol import StreamStats
from atlasd.server.choices import timings


@dataclass(frozen=True)
class Ended:
    """A text that was generated. ``word`` is the stop string it ended at."""

    content: str
    reason: str
    stats: StreamStats
    word: str = ""


def body(
    model: str, done: Ended, *, limit: int, temperature: float, stop: Sequence[str]
) -> dict[str, Any]:
    """All of it; ``select`` leaves what was asked for."""
    stats = done.stats
    kind = "limit" if done.reason == "length" or limit == 0 else "eos"
    return {
        "index": 0,
        "content": done.content,
        "tokens": [],
        "id_slot": 0,
        "stop": True,
        "model": model,
        "tokens_predicted": stats.output_tokens,
        "tokens_evaluated": stats.prompt_tokens,
        "tokens_cached": stats.cached_tokens,
        "truncated": False,
        "has_new_line": "\n" in done.content,
        "stop_type": "word" if done.word else kind,
        "stopping_word": done.word,
        "generation_settings": {
            "n_predict": limit,
            "temperature": temperature,
            "stop": list(stop),
        },
        "timings": timings([stats]),
    }


def select(body: dict[str, Any], fields: list[str] | None) -> dict[str, Any]:
    """llama.cpp's ``response_fields``: ``a/b`` is taken out of its object and keeps the slash in
    its name; what does not exist is left out."""
    if fields is None:
        return body
    chosen: dict[str, Any] = {}
    for name in fields:
        value: Any = body
        for part in name.split("/"):
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            chosen[name] = value
    return chosen
