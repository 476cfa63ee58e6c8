"""``GET /health``: answers at once, also while the model loads, in llama.cpp's way."""

from __future__ import annotations

from aiohttp import web

from atlasd.server.body import answer
from atlasd.server.errors import HTTPError, llamacpp_body
from atlasd.server.services import services

_NOT_READY = {
    "loading": "Loading model",
    "failed": "The model could not be loaded; see: atlasd status",
    "paused": "atlasd is paused; see: atlasd resume",
}


async def health(request: web.Request) -> web.Response:
    """200 when requests are answered, a model that was unloaded for idleness included; 503 with
    the reason otherwise."""
    return not_ready(request) or answer({"status": "ok"})


def not_ready(request: web.Request) -> web.Response | None:
    """The 503 of a daemon that answers no requests; None where it does."""
    state = services(request).state
    if state not in _NOT_READY:
        return None
    body = llamacpp_body(HTTPError(503, _NOT_READY[state]))
    return answer({"status": state, **body}, status=503)
