"""Options, the socket's place, and what the bridge must not import."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import pytest
from atlasd_lsp.options import Options, parse_options
from atlasd_lsp.socket_path import socket_path

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
