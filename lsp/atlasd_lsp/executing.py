"""``workspace/executeCommand``: commands as editors send them, with arguments by their place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from atlasd_lsp import commands, inline
from atlasd_lsp.cursor import file_path

if TYPE_CHECKING:
    from atlasd_lsp.server import AtlasdServer


def register_commands(server: AtlasdServer) -> None:
    """Have the editor's commands answered."""
    bridge = server.bridge

    @server.command(inline.ACCEPT_COMMAND)
    async def accept(id: str) -> None:
        await commands.accept(bridge, id)

    @server.command("atlasd.status")
    async def status() -> dict[str, Any]:
        return await commands.status(bridge)

    @server.command("atlasd.pause")
    async def pause() -> dict[str, Any]:
        return await commands.pause(bridge)

    @server.command("atlasd.resume")
    async def resume() -> dict[str, Any]:
        return await commands.resume(bridge)

    @server.command("atlasd.why")
    async def why(*id: str) -> dict[str, Any]:
        return await commands.why(bridge, id[0] if id else None)

    @server.command("atlasd.chat")
    async def chat(*arguments: str) -> str:
        prompt, selection, language, token, uri = (*arguments, "", "", "", "", "")[:5]
        path = file_path(uri) if uri else None

        def kept_out() -> None:
            name = (path or "").rpartition("/")[2]
            server.warn(f"{name} is ignored or never read: nothing of this chat is kept.")

        def stream(text: str) -> None:
            server.protocol.notify("atlasd/chatText", {"token": token, "text": text})

        return await commands.chat(
            bridge,
            prompt,
            selection or None,
            language or None,
            path,
            stream if token else None,
            kept_out,
        )
