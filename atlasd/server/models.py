"""Which model is served: ``GET /v1/models`` and ``GET /v1/models/{id}``."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from atlasd.server.body import answer
from atlasd.server.errors import HTTPError
from atlasd.server.services import Services, services


def described(daemon: Services) -> dict[str, Any]:
    """The one model that is served, also while it loads."""
    serving = daemon.serving
    entry: dict[str, Any] = {
        "id": daemon.model_name,
        "object": "model",
        "created": serving.created if serving else int(daemon.meter.started),
        "owned_by": "atlasd",
    }
    if serving:
        entry["meta"] = {"n_ctx": serving.slot_tokens, "n_vocab": serving.tokenizer.vocab_size}
    return entry


async def list_models(request: web.Request) -> web.Response:
    return answer({"object": "list", "data": [described(services(request))]})


async def get_model(request: web.Request) -> web.Response:
    entry = described(services(request))
    wanted = request.match_info["model"]
    if wanted != entry["id"]:
        raise HTTPError(
            404,
            f"The model {wanted} is not served here; {entry['id']} is.",
            code="model_not_found",
            param="model",
        )
    return answer(entry)
