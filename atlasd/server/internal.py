"""What the bridge speaks on the socket: completions at the cursor, their fate, open workspaces.

Described in docs/internal-api.md.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from atlasd.completion.flights import Superseded
from atlasd.completion.request import Completion, CompletionRequest, Indent
from atlasd.engine.protocol import Sampling
from atlasd.errors import EngineError
from atlasd.server.body import answer, read, sound_path
from atlasd.server.choices import timings
from atlasd.server.errors import HTTPError, invalid
from atlasd.server.ndjson import send_lines
from atlasd.server.sampling import SEVERAL_TEMPERATURE, check_choices
from atlasd.server.services import Services, services

Fate = Literal["shown", "accepted", "accepted_word", "accepted_line", "dismissed", "superseded"]


class IndentOption(msgspec.Struct):
    """The editor's indentation: its width, and whether it is spaces."""

    size: Annotated[int, Meta(ge=1, le=16)] = 4
    spaces: bool = True


class CompleteRequest(msgspec.Struct):
    """A cursor in an open document."""

    prefix: str
    suffix: str = ""
    path: str | None = None
    language: str | None = None
    repository: str | None = None
    trusted: bool = False
    client: str = ""
    document: str | None = None
    version: int | None = None
    trigger: Literal["automatic", "invoked"] = "automatic"
    choices: int = 1
    max_tokens: int | None = None
    indent: IndentOption | None = None
    drafting: bool = True


class FateRequest(msgspec.Struct):
    id: str
    fate: Fate
    accepted_length: Annotated[int, Meta(ge=0)] | None = None


class OpenedRoot(msgspec.Struct):
    root: str
    trusted: bool = False


class WorkspaceRequest(msgspec.Struct):
    open: list[OpenedRoot] = []
    close: list[str] = []


class EditedRequest(msgspec.Struct):
    path: str
    text: str | None
    """None: the buffer was closed."""
    repository: str | None = None


class IndexRequest(msgspec.Struct):
    path: str


async def complete(request: web.Request) -> web.Response:
    """Suggestions for a cursor; none while paused, and none for a request that was overtaken."""
    asked = await read(request, CompleteRequest)
    count = check_choices(asked.choices, "choices")
    daemon = services(request)
    started = time.perf_counter()
    try:
        found = await _found(daemon, asked, count)
    except Superseded:
        return answer({"items": [], "superseded": True})
    except (EngineError, HTTPError):
        # Also where the pause came while this waited.
        if daemon.state == "paused":
            return answer({"items": [], "paused": True})
        raise
    total_ms = round((time.perf_counter() - started) * 1000, 3)
    return answer({"items": [_item(one, total_ms) for one in found]})


async def _found(daemon: Services, asked: CompleteRequest, count: int) -> list[Completion]:
    async with daemon.use() as serving:
        cursor = _cursor(asked, daemon.config.completion.max_tokens, count)
        return await serving.completer.choices(cursor, count)


def _cursor(asked: CompleteRequest, most_tokens: int, choices: int) -> CompletionRequest:
    # A seed that stays: the same place has the same suggestions, and typing along finds them.
    several = Sampling(temperature=SEVERAL_TEMPERATURE)
    return CompletionRequest(
        prefix=asked.prefix,
        suffix=asked.suffix,
        path=sound_path(asked.path, "path") if asked.path else None,
        language=asked.language,
        repository=sound_path(asked.repository, "repository") if asked.repository else None,
        max_tokens=max(1, min(asked.max_tokens or most_tokens, 4096)),
        sampling=several if choices > 1 else Sampling(),
        indent=None if asked.indent is None else Indent(asked.indent.size, asked.indent.spaces),
        invoked=asked.trigger == "invoked",
        client=asked.client,
        trusted=asked.trusted,
        document=asked.document,
        drafting=asked.drafting,
    )


def _item(done: Completion, total_ms: float) -> dict[str, Any]:
    return {
        "id": done.id,
        "text": done.text,
        "replace_right": done.replace_right,
        "source": done.source,
        "finish_reason": done.finish_reason,
        "trimmed_by": list(done.trimmed_by),
        "stats": {**msgspec.structs.asdict(done.stats), "timings": timings([done.stats])},
        "total_ms": total_ms,
    }


async def fate(request: web.Request) -> web.Response:
    """What became of a suggestion."""
    told = await read(request, FateRequest)
    await services(request).fate(told.id, told.fate, told.accepted_length)
    return answer({})


async def workspace(request: web.Request) -> web.Response:
    """Open and close roots; indexing goes on behind."""
    asked = await read(request, WorkspaceRequest)
    opened = [(_root(one.root), one.trusted) for one in asked.open]
    await services(request).open_workspaces(opened, [_root(root) for root in asked.close])
    return answer({"repositories": [one["root"] for one in services(request).repositories()]})


def _root(text: str) -> Path:
    path = Path(sound_path(text, "root"))
    if not path.is_absolute():
        raise invalid(f"{text!r} is not an absolute path.", "root")
    return path


async def edited(request: web.Request) -> web.Response:
    """An open buffer changed and has not been saved, or was closed."""
    asked = await read(request, EditedRequest)
    path = Path(sound_path(asked.path, "path"))
    if not path.is_absolute() and asked.repository:
        path = Path(sound_path(asked.repository, "repository")) / path
    services(request).note_edit(str(path), asked.text)
    return answer({})


async def index(request: web.Request) -> web.StreamResponse:
    """Index a folder; a line of JSON per piece of progress."""
    path = _root((await read(request, IndexRequest)).path)
    if not path.is_dir():
        raise invalid(f"{path} is not a folder.", "path")
    return await send_lines(request, services(request).index(path), request.path)
