"""A daemon that answers from a script, on a UNIX socket, so that the bridge is tested alone."""

# ruff: noqa: ASYNC110 (what is waited for happens in another process)

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from aiohttp import web


class ScriptedDaemon:
    """Records what it is asked; answers completions with what was enqueued, or with what belongs
    to their place where the order of requests is the editor's business."""

    def __init__(self, home: Path) -> None:
        self.socket = home / "run" / "atlasd.sock"
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[dict[str, Any]] = []
        self.places: dict[str, dict[str, Any]] = {}
        self.pid = 1
        self.progress: list[dict[str, Any]] = [{"state": "ready"}]
        self.answering = asyncio.Event()
        """Clear it, and completions wait for their answer until it is set again."""
        self.answering.set()
        self.cancelled = 0
        self.refusals: dict[str, str] = {}
        """What is said against a request, by path."""
        self._runner: web.AppRunner | None = None

    def enqueue(self, text: str, id: str = "c1", **more: Any) -> None:
        """The next completion asked for is this one, wherever the cursor is."""
        self.answers.append(_answer_of(text, id, **more))

    def complete_after(self, prefix: str, text: str, id: str = "c1", **more: Any) -> None:
        """Every completion asked for with exactly ``prefix`` before the cursor is this one."""
        self.places[prefix] = _answer_of(text, id, **more)

    def choose_after(self, prefix: str, texts: list[str]) -> None:
        """Completions asked for with exactly ``prefix`` are these, called k0, k1, …"""
        each = [_answer_of(text, f"k{at}")["items"][0] for at, text in enumerate(texts)]
        self.places[prefix] = {"items": each}

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for called, body in self.calls if called == path]

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 26)  # more than the daemon takes: it is seen
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True)
        await self._runner.setup()
        self.socket.parent.mkdir(parents=True, exist_ok=True)
        await web.UnixSite(self._runner, str(self.socket)).start()

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.socket.unlink(missing_ok=True)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {}
        self.calls.append((request.path, body))
        if request.path in self.refusals:
            said = {"error": {"message": self.refusals[request.path]}}
            return web.json_response(said, status=404)
        if request.path == COMPLETE:
            try:
                await self.answering.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if self.answers:
                return web.json_response(self.answers.pop(0))
            return web.json_response(self.places.get(body.get("prefix", ""), {"items": []}))
        if request.path == "/atlasd/v1/status":
            return web.json_response({"state": "ready", "pid": self.pid})
        if request.path == "/atlasd/v1/progress":
            events = "".join(f"data: {json.dumps(event)}\n\n" for event in self.progress)
            return web.Response(text=events, content_type="text/event-stream")
        if request.path == "/v1/chat/completions":
            kept = {} if "secret" not in str(body.get("path")) else {"learned": False}
            lines = "".join(
                f"data: {json.dumps({'choices': [{'delta': {'content': text}}], **kept})}\n\n"
                for text in ("a", "b")
            )
            return web.Response(text=lines + "data: [DONE]\n\n", content_type="text/event-stream")
        return web.json_response({})


def _answer_of(text: str, id: str, **more: Any) -> dict[str, Any]:
    return {"items": [{"id": id, "text": text, "replace_right": 0, **more}]}


FATE = "/atlasd/v1/fate"
COMPLETE = "/atlasd/v1/complete"


async def until(daemon: ScriptedDaemon, path: str, count: int = 1) -> list[dict[str, Any]]:
    """The bodies sent to ``path`` once there are ``count`` of them."""
    async with asyncio.timeout(30):
        while len(daemon.bodies(path)) < count:
            await asyncio.sleep(0.02)
    return daemon.bodies(path)
