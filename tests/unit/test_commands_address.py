"""Addresses that are printed are ones that answer."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import aiohttp
import pytest

from atlasd.commands import connect
from atlasd.commands.address import base_url
from atlasd.commands.connect import where
from atlasd.commands.status import describe
from atlasd.errors import AtlasdError
from tests.served import served


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as one:
            one.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0", "::1", "::"])
async def test_what_is_printed_answers(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("no IPv6 here")
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path))
    monkeypatch.setenv("ATLASD_SERVER_HOST", host)
    async with served(tmp_path, options={"server.host": host}) as house:
        monkeypatch.setenv("ATLASD_SERVER_PORT", str(house.port))
        status = await house.daemon.status()
        place = await asyncio.to_thread(where, house.daemon.paths)
        base = base_url(status["http"]["host"], status["http"]["port"])
        assert base == place.base
        assert base in describe(status)
        headers = {"Authorization": f"Bearer {house.token}"}
        async with (
            aiohttp.ClientSession(base, headers=headers) as client,
            client.get("/v1/models") as answer,
        ):
            assert answer.status == 200


async def test_no_token_is_printed_that_the_daemon_would_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody removed it for a new one, and the daemon runs on with the old one."""
    monkeypatch.setattr(connect, "is_locked", lambda folders: True)
    async with served(tmp_path) as house:
        folders = house.daemon.paths
        assert (await asyncio.to_thread(where, folders)).token == house.token
        folders.token.unlink()
        assert (await asyncio.to_thread(where, folders)).token == house.token
        (folders.data / "token").unlink()
        with pytest.raises(AtlasdError, match="atlasd stop"):
            await asyncio.to_thread(where, folders)
    monkeypatch.setattr(connect, "is_locked", lambda folders: False)
    assert where(folders).token != house.token
