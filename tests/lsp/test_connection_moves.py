"""The daemon that is started next may listen elsewhere: the bridge asks it, not the one before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from atlasd_lsp.connection import Connection, DaemonUnreachable


@asynccontextmanager
async def listening(socket: Path) -> AsyncIterator[None]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"here": socket.name})

    app = web.Application()
    app.router.add_get("/", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    yield
    await runner.cleanup()


async def test_a_socket_that_has_moved_is_followed(tmp_path: Path) -> None:
    at = [tmp_path / "one"]
    connection = Connection(lambda: at[0])
    async with listening(tmp_path / "one"), listening(tmp_path / "two"):
        assert await connection.call("/") == {"here": "one"}
        at[0] = tmp_path / "two"
        assert await connection.call("/") == {"here": "two"}
        at[0] = tmp_path / "none"
        with pytest.raises(DaemonUnreachable, match="run atlasd start"):
            await connection.call("/")
    await connection.close()
