"""Tabby's API, for its editor plugins as they are: completions by segments, what became of them,
and the questions its clients ask of a server."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Literal

import msgspec
from aiohttp import web

from atlasd.completion.request import CompletionRequest, Piece
from atlasd.server.body import answer, decoded, read, sound_path
from atlasd.server.errors import invalid
from atlasd.server.health import not_ready
from atlasd.server.infill import inserted
from atlasd.server.sampling import SamplingFields
from atlasd.server.services import services

SPOKEN = "0.30.0"
"""The version of Tabby whose API this is; clients ask for at least 0.9."""

PREFIX = "cmpl-"

FATES = {"view": "shown", "select": "accepted", "dismiss": "dismissed"}


class Snippet(msgspec.Struct):
    """A piece of another file."""

    filepath: str
    body: str


class Segments(msgspec.Struct):
    prefix: str
    suffix: str | None = None
    filepath: str | None = None
    declarations: list[Snippet] | None = None
    relevant_snippets_from_changed_files: list[Snippet] | None = None
    relevant_snippets_from_recently_opened_files: list[Snippet] | None = None

    @property
    def pieces(self) -> tuple[Piece, ...]:
        found = [
            *(self.relevant_snippets_from_recently_opened_files or ()),
            *(self.relevant_snippets_from_changed_files or ()),
            *(self.declarations or ()),
        ]
        return tuple(Piece(each.filepath, each.body) for each in found)


class TabbyRequest(SamplingFields, kw_only=True):
    """What is read of the body. Other keys are ignored."""

    segments: Segments
    language: str | None = None
    mode: str | None = None


class Event(msgspec.Struct):
    type: Literal["view", "select", "dismiss"]
    completion_id: str
    choice_index: int = 0


def meant(raw: bytes) -> bool:
    """Whether a body sent to ``/v1/completions`` is Tabby's rather than OpenAI's."""
    if b'"segments"' not in raw:
        return False
    try:
        return "segments" in decoded(raw, dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        # Whoever reads it next says what is wrong with it.
        return False


async def completions(request: web.Request) -> web.Response:
    """The suggestion at the end of the prefix."""
    asked = await read(request, TabbyRequest)
    if asked.mode not in (None, "standard"):
        raise invalid(f"mode: {asked.mode} is not known, only standard.", "mode", "not_supported")
    if asked.seed is None:
        # The same place has the same suggestion, and typing along finds it again.
        asked.seed = 0
    daemon, segments = services(request), asked.segments
    path = sound_path(segments.filepath, "segments.filepath") if segments.filepath else None
    async with daemon.use() as serving:
        cursor = CompletionRequest(
            prefix=segments.prefix,
            suffix=segments.suffix or "",
            path=path,
            language=asked.language,
            pieces=segments.pieces,
            gather=path is not None and Path(path).is_absolute(),
            max_tokens=daemon.config.completion.max_tokens,
            sampling=asked.sampling(serving.tokenizer.vocab_size)[0],
            client="tabby",
            trusted=asked.learned,
            drafting=asked.drafting,
        )
        done = await serving.completer.complete(cursor)
    if done is None:
        return answer({"id": f"{PREFIX}none", "choices": [], "mode": "standard"})
    choice = {"index": 0, "text": inserted(done, cursor.suffix)}
    return answer({"id": PREFIX + done.id, "choices": [choice], "mode": "standard"})


async def events(request: web.Request) -> web.Response:
    """A suggestion was seen, taken or passed over."""
    told = await read(request, Event)
    fate = FATES[told.type]
    if told.type == "select" and request.query.get("select_kind") == "line":
        fate = "accepted_line"
    await services(request).fate(told.completion_id.removeprefix(PREFIX), fate, None)
    return answer({})


async def health(request: web.Request) -> web.Response:
    """Who is here; 503 in llama.cpp's shape until requests are answered."""
    if (waiting := not_ready(request)) is not None:
        return waiting
    daemon = services(request)
    known: dict[str, Any] = {
        "status": "ok",
        "model": daemon.model_name,
        "chat_model": daemon.model_name,
        "device": "cpu",
        "arch": platform.machine(),
        "cpu_info": platform.processor() or platform.machine(),
        "cpu_count": os.cpu_count() or 1,
        "cuda_devices": [],
        "models": {"completion": {"local": {"model_id": daemon.model_name}}},
        "version": {
            "build_date": "",
            "build_timestamp": "",
            "git_sha": "",
            "git_describe": f"v{SPOKEN}",
        },
    }
    return answer(known)


async def server_setting(request: web.Request) -> web.Response:
    """Nothing is reported to anybody."""
    return answer({"disable_client_side_telemetry": True})
