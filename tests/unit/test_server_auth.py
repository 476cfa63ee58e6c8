"""Who may call: the table of what a stranger, a web page and a wrong client are answered."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from atlasd.errors import ConfigError
from atlasd.run import leave_out_malformed_requests
from atlasd.server.app import PUBLIC, SOCKET_ONLY
from atlasd.server.auth import check_bind, host_names, secret_token
from tests.served import House, served

JSON = {"Content-Type": "application/json"}


@pytest_asyncio.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    options = {"server.allowed_origins": ("vscode-webview://*", "http://localhost:3000"),
               "server.allowed_hosts": ("box.lan",), "server.max_body_mb": 0.1}  # fmt: skip
    async with served(tmp_path, options=options) as opened:
        yield opened


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:PORT"}, 200),
        ({"Host": "localhost:PORT"}, 200),
        ({"Host": "LOCALHOST:PORT"}, 200),
        ({"Host": "[::1]:PORT"}, 200),
        ({"Host": "box.lan:PORT"}, 200),
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:PORT"}, 403),
        ({"Host": "127.0.0.1.evil.example:PORT"}, 403),
        ({"Host": "localhost.:PORT"}, 403),
        ({"Host": ""}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://localhost:PORT"}, 403),
        ({"Origin": "http://localhost:3000"}, 200),
        ({"Origin": "http://localhost:30001"}, 403),
        ({"Origin": "vscode-webview://0a1b2c"}, 200),
        ({"Origin": "vscode-webviews://0a1b2c"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Basic TOKEN"}, 401),
        ({"Authorization": "bearer TOKEN"}, 200),
        ({"Authorization": "Bearer TOKENx"}, 401),
        ({"Authorization": "Bearer ünïcode"}, 401),
        ({"Authorization": "", "X-Api-Key": "TOKEN"}, 200),
        ({"Authorization": "Bearer ", "X-Api-Key": "TOKEN"}, 200),
        ({"Authorization": "", "X-Api-Key": ""}, 401),
    ],
)
async def test_what_the_guard_lets_pass(house: House, headers: dict[str, str], status: int) -> None:
    told = {
        name: value.replace("PORT", str(house.port)).replace("TOKEN", house.token)
        for name, value in headers.items()
    }
    async with house.tcp() as client, client.get("/v1/models", headers=told) as answer:
        assert answer.status == status
        if status != 200:
            assert (await answer.json())["error"]["message"]
        assert answer.headers.get("Access-Control-Allow-Origin") == (
            told.get("Origin") if status == 200 else None
        )


async def test_a_request_without_a_host_is_refused(house: House) -> None:
    for head in ("GET /health HTTP/1.0\r\n", f"GET /health HTTP/1.1\r\nHost: x\r\nHost: "
                 f"127.0.0.1:{house.port}\r\n"):  # fmt: skip
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        line = await reader.readline()
        assert line.split()[1] in (b"403", b"400")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/t/TOKEN/v1/models", 200),
        ("/t/TOKEN/health", 200),
        ("/t/wrong/v1/models", 401),
        ("/t//v1/models", 401),
        ("/t/TOKEN/nowhere", 404),
        ("/t/wrong/nowhere", 401),
        ("/t/TOKEN", 404),
        ("/t", 401),
        ("/v1/models", 401),
        ("/nowhere", 401),
        ("/health", 200),
    ],
)
async def test_the_token_can_stand_in_the_path(house: House, path: str, status: int) -> None:
    async with (
        house.tcp(token=False) as client,
        client.get(path.replace("TOKEN", house.token)) as answer,
    ):
        assert answer.status == status
        assert house.token not in await answer.text()


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
async def test_a_post_is_json_or_nothing(house: House, kind: str) -> None:
    async with house.tcp() as client:
        headers = {"Content-Type": kind}
        async with client.post("/v1/completions", data=b"{}", headers=headers) as answer:
            assert answer.status == 415
            assert (await answer.json())["error"]["code"] == "not_json"


async def test_a_post_without_a_body_needs_no_type(house: House) -> None:
    """Tabby's older clients ask for its health like this."""
    async with house.tcp() as client:
        async with client.post("/v1/health") as answer:
            assert answer.status == 200
        async with client.post("/v1/completions") as answer:
            assert answer.status == 400


async def test_a_request_that_is_no_http_leaves_nothing_in_the_log(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """Its head may hold the token, and anybody on this machine may send one."""
    leave_out_malformed_requests()
    for head in (f"GET /t/{house.token}{'x' * 9000}/v1/models HTTP/1.1", "GET / HTTP/1.1\r\n b"):
        reader, writer = await asyncio.open_connection("127.0.0.1", house.port)
        writer.write(f"{head}\r\n\r\n".encode())
        assert b"400" in await reader.readline()
        writer.close()
        await writer.wait_closed()
    async with house.tcp() as client:
        wrong = {**JSON, "Content-Encoding": "gzip"}
        async with client.post("/completion", data=b"no gzip", headers=wrong) as answer:
            assert answer.status == 400
    logging.getLogger("aiohttp.server").error("a fault of the server's own")
    assert [record.getMessage() for record in caplog.records] == ["a fault of the server's own"]


async def test_a_body_that_is_too_large_is_refused_whether_announced_or_not(house: House) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield b" " * 1024

    async with house.tcp() as client:
        for data in (b" " * 200_000, endless()):
            async with client.post("/v1/completions", data=data, headers=JSON) as answer:
                assert answer.status == 413
                assert (await answer.json())["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(("method", "path"), [(one[0], one[1]) for one in SOCKET_ONLY])
async def test_management_is_on_the_socket_only(house: House, method: str, path: str) -> None:
    async with house.tcp() as client:
        async with client.request(method, path, data=b"{}", headers=JSON) as answer:
            assert answer.status == 403
            assert (await answer.json())["error"]["code"] == "socket_only"
        async with client.request(method, f"/t/{house.token}{path}", data=b"{}",
                                  headers=JSON) as answer:  # fmt: skip
            assert answer.status in (403, 404)


@pytest.mark.parametrize(("method", "path"), [(one[0], one[1]) for one in PUBLIC])
async def test_no_public_path_but_health_answers_without_the_token(
    house: House, method: str, path: str
) -> None:
    path = path.replace("{model:.+}", "tiny")
    async with (
        house.tcp(token=False) as client,
        client.request(method, path, data=b"{}", headers=JSON) as answer,
    ):
        assert answer.status == (200 if path == "/health" else 401)


async def test_the_socket_needs_no_token_and_is_ours_alone(house: House) -> None:
    assert stat.S_IMODE(house.daemon.paths.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(house.daemon.paths.runtime.stat().st_mode) == 0o700
    async with house.unix() as client, client.get("/atlasd/v1/status") as answer:
        assert answer.status == 200


async def test_another_user_at_the_socket_is_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atlasd.server.auth.peer_uid", lambda connection: os.getuid() + 1)
    async with house.unix() as client, client.get("/health") as answer:
        assert answer.status == 403


async def test_an_allowed_page_may_ask_first(house: House) -> None:
    async with house.tcp(token=False) as client:
        asked = {"Origin": "http://localhost:3000", "Access-Control-Request-Method": "POST"}
        async with client.options("/v1/chat/completions", headers=asked) as answer:
            assert answer.status == 204
            assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
            assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
        asked["Origin"] = "http://evil.example"
        async with client.options("/v1/chat/completions", headers=asked) as answer:
            assert answer.status == 403


async def test_without_a_token_setting_loopback_is_open(tmp_path: Path) -> None:
    async with (
        served(tmp_path, options={"server.token": False}) as house,
        house.tcp(token=False) as client,
    ):
        async with client.get("/v1/models") as answer:
            assert answer.status == 200
        async with client.get("/v1/models", headers={"Origin": "http://evil.example"}) as answer:
            assert answer.status == 403


def test_beyond_loopback_needs_the_token() -> None:
    check_bind("0.0.0.0", True)
    check_bind("127.0.0.1", False)
    for host in ("0.0.0.0", "192.168.0.4", "::", "box.lan"):
        with pytest.raises(ConfigError, match="not loopback"):
            check_bind(host, False)


def test_host_names_are_exact() -> None:
    names = host_names("192.168.0.4", 80, ["box.lan", "other:81", "[::5]:80"])
    assert {"192.168.0.4:80", "192.168.0.4", "box.lan:80", "other:81", "[::5]:80"} <= names
    assert host_names("0.0.0.0", 8012) == host_names("127.0.0.1", 8012)
    assert len(host_names("::1", 8012)) == 3


def test_the_token_is_private_and_stays(tmp_path: Path) -> None:
    files = tmp_path / "token", tmp_path / "copy"
    token = secret_token(*files)
    assert len(token) >= 43
    assert [stat.S_IMODE(file.stat().st_mode) for file in files] == [0o600, 0o600]
    files[1].unlink()
    assert secret_token(*files) == token
    assert files[1].read_text().strip() == token


@pytest.mark.parametrize("fault", ["readable by others", "a link", "too short", "empty"])
def test_a_token_that_may_be_known_is_replaced(tmp_path: Path, fault: str) -> None:
    file = tmp_path / "token"
    token = secret_token(file)
    if fault == "readable by others":
        file.chmod(0o644)
    elif fault == "a link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    else:
        file.write_text("short" if fault == "too short" else "")
    made = secret_token(file)
    assert made != token
    assert not file.is_symlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_system_tells_the_peer() -> None:
    from atlasd.server.auth import peer_uid

    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.getuid()
