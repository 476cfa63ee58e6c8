"""What is stored: looked at, taken along, removed. On the socket only."""

from __future__ import annotations

import msgspec
from aiohttp import web

from atlasd.server.body import answer, read
from atlasd.server.ndjson import send_lines
from atlasd.server.services import services


class PurgeRequest(msgspec.Struct):
    repository: str | None
    """Required, and null for everything, so that an empty body removes nothing."""


async def show(request: web.Request) -> web.Response:
    """Per repository: files, tokens, completions by fate, learned state, bytes."""
    return answer(await services(request).stored(request.query.get("repository")))


async def export(request: web.Request) -> web.StreamResponse:
    """Every stored row as a line of JSON with its ``table``."""
    rows = services(request).export(request.query.get("repository"))
    return await send_lines(request, rows, request.path)


async def purge(request: web.Request) -> web.Response:
    """Remove a repository, or everything; also from the engine's memory."""
    asked = await read(request, PurgeRequest)
    daemon = services(request)
    removed = await daemon.purge(asked.repository)
    daemon.meter.forget(asked.repository)
    return answer({"removed": removed})
