"""What an editor's commands ask of the daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from atlasd_lsp.bridge import Bridge
from atlasd_lsp.connection import DaemonRefused, DaemonUnreachable
from atlasd_lsp.cursor import owning_root
from atlasd_lsp.fates import Told, part_fate


async def accept(bridge: Bridge, id: str) -> None:
    """The client accepted a whole suggestion."""
    bridge.tell(bridge.shown.accepted(id))


async def accept_part(bridge: Bridge, id: str, text: str, units: int) -> None:
    """The client accepted the first ``units`` UTF-16 code units of a suggestion's ``text``."""
    taken = text.encode("utf-16-le")[: 2 * units].decode("utf-16-le", errors="ignore")
    original, before = bridge.shown.original(id)
    length = before + len(taken)
    bridge.shown.told_by_client(original, length)
    bridge.tell([Told(original, part_fate(text, len(taken)), length)])


async def status(bridge: Bridge) -> dict[str, Any]:
    """The daemon's status, or why there is none: for a status bar, so never an error."""
    try:
        return await bridge.connection.call("/atlasd/v1/status")
    except (DaemonUnreachable, DaemonRefused) as error:
        return {"state": "stopped", "error": bridge.problem or str(error)}


async def pause(bridge: Bridge) -> dict[str, Any]:
    """No completion, no indexing, no model in memory until resumed."""
    return await bridge.call("/atlasd/v1/pause", {})


async def resume(bridge: Bridge) -> dict[str, Any]:
    return await bridge.call("/atlasd/v1/resume", {})


async def why(bridge: Bridge, id: str | None = None) -> dict[str, Any]:
    """How the last suggestion (or the one named) came about."""
    query = f"?id={quote(id)}" if id else ""
    return await bridge.call(f"/atlasd/v1/why{query}")


def chat_body(
    prompt: str,
    selection: str | None,
    language: str | None,
    trusted: bool,
    path: str | None = None,
    root: str | None = None,
) -> dict[str, Any]:
    """A chat request about a selection of the file ``path``, in a workspace that is ``trusted`` or
    not. The selection is also given as ``prediction``: an edit of it repeats most of it, and is
    then drafted from it."""
    content = prompt
    if selection:
        content = f"{prompt}\n\n```{language or ''}\n{selection}\n```"
    body: dict[str, Any] = {
        "model": "atlasd",
        "messages": [{"role": "user", "content": content}],
        "stream": True,
        "learn": trusted,
    }
    if selection:
        body["prediction"] = {"type": "content", "content": selection}
        if path is not None:
            body["path"], body["repository"] = path, root
    return body


async def chat(
    bridge: Bridge,
    prompt: str,
    selection: str | None,
    language: str | None,
    path: str | None = None,
    on_text: Callable[[str], None] | None = None,
    on_kept_out: Callable[[], None] = lambda: None,
) -> str:
    """Ask the chat model about a selection of the file ``path``. ``on_text`` is called with each
    piece as it comes; ``on_kept_out`` if nothing is learned because of what file that is."""
    await bridge.connect()
    pieces: list[str] = []
    trusted = bridge.options.trusted
    body = chat_body(prompt, selection, language, trusted, path, owning_root(path, bridge.roots))
    told = not trusted  # a workspace without trust is known to keep nothing
    async for event in bridge.connection.events("/v1/chat/completions", body):
        if event.get("learned") is False and not told:
            told = True
            on_kept_out()
        if "error" in event:
            raise DaemonRefused(json.dumps(event["error"]))
        for choice in event.get("choices", []):
            if text := choice.get("delta", {}).get("content"):
                pieces.append(text)
                if on_text is not None:
                    on_text(text)
    return "".join(pieces)
