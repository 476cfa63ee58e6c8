"""What Ollama tells of itself and its models: ``/api/version``, ``tags``, ``ps``, ``show``."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from aiohttp import web

from atlasd.server.body import answer, read
from atlasd.server.services import Services, services

SPOKEN = "0.12.0"
"""The version of Ollama whose API this is."""

TEMPLATE = "{{- if .Suffix }}{{ .Prompt }}{{ .Suffix }}{{ else }}{{ .Prompt }}{{ end }}"
"""Only its ``.Suffix`` is ever looked at: by that clients know that the middle can be filled."""


NEVER_MINUTES = 100 * 365 * 24 * 60
"""A model that is never unloaded is so in a hundred years."""


class ShowRequest(msgspec.Struct):
    model: str = ""
    name: str = ""


def when(seconds: float) -> str:
    """A time as Ollama writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


async def running(request: web.Request) -> web.Response:
    """What clients look for to know that there is a server."""
    return web.Response(text="Ollama is running")


async def version(request: web.Request) -> web.Response:
    return answer({"version": SPOKEN})


def _details(daemon: Services) -> dict[str, Any]:
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": "llama",
        "families": ["llama"],
        "parameter_size": "",
        "quantization_level": "",
    }


async def _entry(daemon: Services) -> dict[str, Any]:
    engine = await daemon.engine_status() or {}
    return {
        "name": daemon.model_name,
        "model": daemon.model_name,
        "modified_at": when(daemon.meter.started),
        "size": int(engine.get("memory", {}).get("weights", 0)),
        # Clients show its beginning; it tells models apart and nothing of their weights.
        "digest": hashlib.sha256(daemon.model_name.encode()).hexdigest(),
        "details": _details(daemon),
    }


async def tags(request: web.Request) -> web.Response:
    """The one model that is served."""
    return answer({"models": [await _entry(services(request))]})


async def running_models(request: web.Request) -> web.Response:
    """The model, while it is in memory."""
    daemon = services(request)
    if daemon.state != "ready":
        return answer({"models": []})
    entry = await _entry(daemon)
    serving = daemon.serving
    idle_minutes = daemon.config.engine.idle_minutes
    more = {
        "expires_at": when(time.time() + 60 * min(idle_minutes or NEVER_MINUTES, NEVER_MINUTES)),
        "size_vram": 0,
        "context_length": serving.slot_tokens if serving else 0,
    }
    return answer({"models": [{**entry, **more}]})


async def show(request: web.Request) -> web.Response:
    """What the model can do; any name is answered by the one that is served."""
    await read(request, ShowRequest)
    daemon = services(request)
    serving = daemon.serving
    info: dict[str, Any] = {"general.architecture": "llama", "general.basename": daemon.model_name}
    if serving is not None:
        info["llama.context_length"] = serving.slot_tokens
        info["llama.vocab_size"] = serving.tokenizer.vocab_size
    return answer(
        {
            "modelfile": "",
            "parameters": "",
            "template": TEMPLATE,
            "details": _details(daemon),
            "model_info": info,
            "capabilities": ["completion", "insert", "tools"],
            "modified_at": when(daemon.meter.started),
        }
    )
