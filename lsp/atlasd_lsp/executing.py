"""``workspace/executeCommand``: commands as editors send them, with arguments by their place."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import TYPE_CHECKING, Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from atlasd_lsp import commands, inline
from atlasd_lsp.connection import DaemonRefused, DaemonUnreachable
from atlasd_lsp.cursor import file_path
from atlasd_lsp.launch import told

if TYPE_CHECKING:
    from atlasd_lsp.server import AtlasdServer


Command = Callable[..., Awaitable[Any]]


def register_commands(server: AtlasdServer) -> None:
    """Have the editor's commands answered."""
    bridge = server.bridge

    def command(name: str) -> Callable[[Command], Command]:
        """Answer a command; what the daemon says against it is told in the daemon's words, since
        editors show it as it is."""

        def register(run: Command) -> Command:
            @server.command(name)
            @wraps(run)
            async def answer(*arguments: Any) -> Any:
                try:
                    return await run(*arguments)
                except (DaemonUnreachable, DaemonRefused) as error:
                    failed = types.LSPErrorCodes.RequestFailed
                    raise JsonRpcException(str(error), failed) from None

            return run

        return register

    @command(inline.ACCEPT_COMMAND)
    async def accept(id: str) -> None:
        await commands.accept(bridge, id)

    @command("atlasd.status")
    async def status() -> dict[str, Any]:
        return await commands.status(bridge)

    @command("atlasd.pause")
    async def pause() -> dict[str, Any]:
        return await commands.pause(bridge)

    @command("atlasd.resume")
    async def resume() -> dict[str, Any]:
        return await commands.resume(bridge)

    @command("atlasd.why")
    async def why(*id: str) -> dict[str, Any]:
        return await commands.why(bridge, id[0] if id else None)

    @command("atlasd.tell")
    async def tell(what: str) -> str:
        if what not in ("status", "why"):
            raise DaemonRefused(f"There is nothing to tell of {what!r}.")
        return await told(what)

    @command("atlasd.chat")
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
