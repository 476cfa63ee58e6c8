"""Progress in the editor while the model loads."""

from __future__ import annotations

import uuid

from lsprotocol import types
from pygls.lsp.server import LanguageServer

from atlasd_lsp.bridge import Bridge
from atlasd_lsp.connection import DaemonRefused, DaemonUnreachable


async def show_loading(server: LanguageServer, bridge: Bridge) -> None:
    """Follow the loading of the daemon that was reached with a work-done progress, for clients
    that show those."""
    window = server.client_capabilities.window
    if window is None or not window.work_done_progress:
        return
    token = f"atlasd-loading-{uuid.uuid4().hex[:8]}"
    begun = False
    try:
        async for event in bridge.connection.events("/atlasd/v1/progress"):
            if event.get("state") != "loading":
                break
            stage = str(event.get("stage") or "loading the model")
            percent = int(100 * float(event.get("fraction") or 0))
            if not begun:
                await server.work_done_progress.create_async(token)
                server.work_done_progress.begin(
                    token,
                    types.WorkDoneProgressBegin(title="atlasd", message=stage, percentage=percent),
                )
                begun = True
            else:
                server.work_done_progress.report(
                    token, types.WorkDoneProgressReport(message=stage, percentage=percent)
                )
    except (DaemonUnreachable, DaemonRefused):
        pass
    if begun:
        server.work_done_progress.end(token, types.WorkDoneProgressEnd(message="ready"))
