"""What the daemon says of itself: ``atlasd status``, ``top`` and ``why``."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import msgspec

from atlasd import __version__
from atlasd.server.app import GENERATING

if TYPE_CHECKING:
    from atlasd.daemon import Daemon
    from atlasd.models.tokenizer import Tokenizer

SILENT_S = 5.0
"""An engine that owes an answer for so long is worth a word."""


async def status(daemon: Daemon) -> dict[str, Any]:
    """Everything there is to say in one object; see docs/internal-api.md."""
    said = daemon.progress()
    ready = daemon.engine.ready_info
    known = {} if ready is None else msgspec.to_builtins(ready)
    return {
        "version": __version__,
        "pid": os.getpid(),
        "state": said["state"],
        "stage": said["stage"],
        "fraction": said["fraction"],
        "error": said.get("error"),
        "hint": said.get("hint"),
        "model": {**known, "name": daemon.model_name},
        "drafting": daemon.engine.load.drafting,
        "engine": await daemon.engine_status(),
        "engine_pid": daemon.engine.pid,
        "engine_silent_s": daemon.engine.silent_s,
        "repositories": daemon.repositories(),
        "served": served(daemon),
        "store": daemon.store is not None,
        "uptime_s": round(daemon.meter.up_s, 1),
        "http": {"host": daemon.config.server.host, "port": daemon.port},
        "socket": str(daemon.paths.socket),
    }


def served(daemon: Daemon) -> dict[str, Any]:
    """What was answered since the start."""
    meter = daemon.meter
    asked = sum(count for (route, _), count in meter.requests.items() if route in GENERATING)
    return {
        "requests": asked,
        "in_flight": meter.in_flight,
        "prompt_tokens": meter.prompt_tokens,
        "cached_tokens": meter.cached_tokens,
        "output_tokens": meter.output_tokens,
        "decode_s": round(meter.decode_s, 3),
        "drafted": dict(meter.drafted),
        "accepted": dict(meter.accepted),
        "engine_restarts": meter.engine_restarts,
        "completions": daemon.serving.completer.stats if daemon.serving else {},
    }


async def why(daemon: Daemon, id: str | None) -> dict[str, Any] | None:
    """How a suggestion came about, with the engine's steps; None if it is not remembered."""
    if id is None and (reason := _not_answering(daemon)):
        return {"nothing": reason, "at": time.time(), "source": "none", "steps": []}
    found = daemon.serving.completer.why(id) if daemon.serving else None
    if found is None:
        return None
    stream = found.get("stream")
    steps = await daemon.engine.explain(stream) if isinstance(stream, int) else []
    tokenizer = daemon.supervisor.tokenizer
    return {**found, "steps": [_spelled_out(step, tokenizer) for step in steps]}


def _not_answering(daemon: Daemon) -> str:
    """Why nothing at all is suggested at the moment; empty if that is not so."""
    said = daemon.progress()
    match said["state"]:
        case "paused":
            return "atlasd is paused (atlasd resume goes on)"
        case "failed":
            return f"the model could not be loaded: {said.get('error')} {said.get('hint') or ''}"
        case "loading":
            return f"the model is not there yet: {said['stage']}, {said['fraction']:.0%}"
        case "ready" if daemon.engine.silent_s >= SILENT_S:
            return f"the engine has not answered for {daemon.engine.silent_s:.0f} s"
    return ""


def _spelled_out(step: dict[str, Any], tokenizer: Tokenizer | None) -> dict[str, Any]:
    """A planned step with the text of what was drafted: the engine knows tokens only."""

    def spell(draft: Any) -> Any:
        if tokenizer is None or not isinstance(draft, dict) or "tokens" not in draft:
            return draft
        return {**draft, "text": tokenizer.decode(draft["tokens"])}

    told = dict(step)
    if "chosen" in told:
        told["chosen"] = spell(told["chosen"])
    if isinstance(told.get("candidates"), list):
        told["candidates"] = [spell(one) for one in told["candidates"]]
    return told
