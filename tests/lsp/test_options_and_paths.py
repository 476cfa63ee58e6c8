"""Options, the socket's place, and what the bridge must not import."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from atlasd_lsp.options import Options, parse_options
from atlasd_lsp.socket_path import socket_path

from atlasd.listeners import AlreadyRunning, Lock
from atlasd.paths import paths


@pytest.mark.parametrize(
    "environ",
    [
        {"ATLASD_HOME": "/tmp/x", "HOME": "/home/u"},
        {"XDG_RUNTIME_DIR": "/run/user/1000", "HOME": "/home/u"},
        {"XDG_STATE_HOME": "/s", "HOME": "/home/u"},
        {"XDG_RUNTIME_DIR": "relative", "XDG_STATE_HOME": "relative", "HOME": "/home/u"},
        {"HOME": "/home/u"},
    ],
)
def test_the_bridge_looks_where_the_daemon_listens(environ: dict[str, str]) -> None:
    assert socket_path(environ) == paths(environ).socket


def test_a_daemon_that_was_started_from_elsewhere_is_found(tmp_path: Path) -> None:
    home = {"HOME": str(tmp_path)}
    desktop = {**home, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    (tmp_path / "run").mkdir()
    for started, asked in ((desktop, home), (home, desktop)):
        folders, own = paths(started), paths(asked)
        assert folders.socket != own.socket
        folders.create()
        own.create()
        lock = Lock(folders)
        assert paths(asked) == folders
        assert socket_path(asked) == socket_path(started) == folders.socket
        with pytest.raises(AlreadyRunning):
            Lock(own)
        lock.release()
        assert paths(asked) == own
        assert socket_path(asked) == own.socket


@pytest.mark.parametrize("says", ["", "relative\n", "/no/such/folder\n", "\0", b"\xff"])
def test_a_pointer_that_makes_no_sense_is_ignored(says: str | bytes, tmp_path: Path) -> None:
    folders = paths({"HOME": str(tmp_path)})
    folders.create()
    folders.pointer.write_bytes(says if isinstance(says, bytes) else says.encode())
    assert paths({"HOME": str(tmp_path)}) == folders
    assert socket_path({"HOME": str(tmp_path)}) == folders.socket
    Lock(folders).release()
    assert folders.pointer.read_text() == f"{folders.runtime}\n"


def test_another_users_runtime_folder_is_ignored(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    try:
        os.chown(theirs, 12345, 12345)
    except OSError as error:
        pytest.skip(f"no folder can be given to another user here: {error.strerror}")
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(theirs)}
    assert paths(environ).runtime == tmp_path / ".local/state/atlasd/run"
    assert socket_path(environ) == paths(environ).socket


def test_options_that_cannot_be_used_are_named_and_no_trust_is_taken_from_them() -> None:
    options, complaints = parse_options({"trusted": "yes", "maxTokens": 12, "daemonCommand": [1]})
    assert options == Options(max_tokens=12, trusted=False)
    assert complaints == [
        "trusted must be a bool, not 'yes'; the workspace is not trusted.",
        "daemonCommand must be a list of strings, not [1].",
    ]
    assert parse_options(None) == (Options(), [])
    assert parse_options([1])[1] == [
        "initializationOptions must be an object; the defaults are used."
    ]


def test_what_a_change_of_settings_does_not_name_stays_as_it_was() -> None:
    before, _ = parse_options({"trusted": False, "editor": "helix", "startDaemon": False})
    after, complaints = parse_options({"maxTokens": 12, "startDaemon": "no"}, before)
    assert after == Options(trusted=False, editor="helix", start_daemon=False, max_tokens=12)
    assert complaints == ["startDaemon must be a bool, not 'no'; it is left as it was."]


def test_the_bridge_imports_neither_torch_nor_atlasd_nor_aiohttp_at_start() -> None:
    code = (
        "import sys, atlasd_lsp.server as s; s.make_server();"
        "print([m for m in ('torch', 'atlasd', 'aiohttp', 'numpy') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_bridge_is_ready_within_200_ms_on_top_of_importing_pygls() -> None:
    code = (
        "import pygls.lsp.server, lsprotocol.types, time; t = time.process_time();"
        "import atlasd_lsp.server as s; s.make_server(); print(time.process_time() - t)"
    )
    best = min(
        float(
            subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=True
            ).stdout
        )
        for _ in range(3)
    )
    assert best < 0.2


def test_version_is_printed_without_serving() -> None:
    began = time.monotonic()
    found = subprocess.run(
        [sys.executable, "-m", "atlasd_lsp", "--version"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith("atlasd-lsp ")
    assert time.monotonic() - began < 30


@pytest.mark.timeout(30)
def test_ctrl_c_ends_it_at_once() -> None:
    """It stopped serving, and waited for the end of standard input."""
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"capabilities": {}}}
    body = json.dumps(hello).encode()
    command = [sys.executable, "-m", "atlasd_lsp"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bridge:
        assert bridge.stdin is not None
        assert bridge.stdout is not None
        bridge.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        bridge.stdin.flush()
        assert bridge.stdout.readline().startswith(b"Content-")
        bridge.send_signal(signal.SIGINT)
        assert bridge.wait() == -signal.SIGINT
