"""What is stored: looked at, taken along, removed. On the socket only."""

from __future__ import annotations

import msgspec
from aiohttp import web

from atlasd.server.body import answer, compact, read
from atlasd.server.services import services


class PurgeRequest(msgspec.Struct):
    repository: str | None
    """Required, and null for everything, so that an empty body removes nothing."""


async def show(request: web.Request) -> web.Response:
    """Per repository: files, tokens, completions by fate, learned state, bytes."""
    return answer(await services(request).stored(request.query.get("repository")))


async def export(request: web.Request) -> web.StreamResponse:
    """Every stored row as a line of JSON with its ``table``."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    async for row in services(request).export(request.query.get("repository")):
        await response.write(compact(row) + b"\n")
    return response


async def purge(request: web.Request) -> web.Response:
    """Remove a repository, or everything; also from the engine's memory."""
    asked = await read(request, PurgeRequest)
    return answer({"removed": await services(request).purge(asked.repository)})
