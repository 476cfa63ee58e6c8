"""Looking at the daemon and steering it, on the socket only: status, why, pause, stop.

Described in docs/internal-api.md.
"""

from __future__ import annotations

import msgspec
from aiohttp import web

from atlasd.server.body import answer, read
from atlasd.server.errors import HTTPError
from atlasd.server.services import services
from atlasd.server.sse import event_stream


class DraftingRequest(msgspec.Struct):
    on: bool


async def status(request: web.Request) -> web.Response:
    """Everything there is to say in one object."""
    return answer(await services(request).status())


async def progress(request: web.Request) -> web.StreamResponse:
    """Events until the model is ready or has failed."""
    async with event_stream(request, request.path) as events:
        async for step in services(request).watch_progress():
            await events.send(step)
            if step["state"] != "loading":
                break
    return events.response


async def why(request: web.Request) -> web.Response:
    """How a suggestion came about."""
    wanted = request.query.get("id")
    found = await services(request).why(wanted)
    if found is None:
        which = f"No completion {wanted} is remembered." if wanted else "No completion yet."
        raise HTTPError(404, which, code="not_found")
    return answer(found)


async def pause(request: web.Request) -> web.Response:
    """No completion, no indexing, no model in memory, until ``resume``."""
    await services(request).pause()
    return answer({"state": services(request).state})


async def resume(request: web.Request) -> web.Response:
    await services(request).resume()
    return answer({"state": services(request).state})


async def drafting(request: web.Request) -> web.Response:
    """Switch drafting on or off; the text stays the same."""
    asked = await read(request, DraftingRequest)
    await services(request).set_drafting(asked.on)
    return answer({"on": asked.on})


async def stop(request: web.Request) -> web.Response:
    """End the daemon after this answer."""
    services(request).stop()
    return answer({})
