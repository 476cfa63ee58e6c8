"""What ``atlasd doctor`` checks of the daemon: whether it answers, where, and with which model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from atlasd import __version__
from atlasd.commands.connection import Connection
from atlasd.commands.finding import Finding
from atlasd.commands.hardware import memory
from atlasd.commands.output import size
from atlasd.commands.status import silent
from atlasd.config import load
from atlasd.errors import AtlasdError, NotRunningError
from atlasd.listeners import SOCKET_PATH_BYTES, listen_on_tcp
from atlasd.paths import Paths, is_locked


def socket(folders: Paths) -> Iterator[Finding]:
    if len(os.fsencode(folders.socket)) > SOCKET_PATH_BYTES:
        yield Finding(
            "socket",
            "bad",
            f"{folders.socket} is too long a path for a socket",
            "Set XDG_RUNTIME_DIR or ATLASD_HOME to a shorter folder.",
        )
        return
    try:
        status = Connection(folders).call("GET", "/atlasd/v1/status", timeout=5)
    except NotRunningError:
        if is_locked(folders):
            yield Finding(
                "daemon", "bad", "it runs but does not answer", "atlasd stop, then atlasd start"
            )
        else:
            yield Finding("daemon", "note", "not running", "atlasd start")
        return
    except AtlasdError as error:
        yield Finding("daemon", "bad", error.message, error.hint or "atlasd stop, atlasd start")
        return
    verdict: Literal["ok", "bad"] = "bad" if status["state"] == "failed" else "ok"
    message = f"{status['state']}, pid {status['pid']}, model {status['model']['name']}"
    mend = f"{status['error']} {status['hint']}" if status["error"] else ""
    yield Finding("daemon", verdict, message, mend)
    if status["state"] == "ready" and status["engine"] is None:
        yield Finding(
            "engine",
            "bad",
            silent(status),
            "To start it again at once: atlasd pause, then atlasd resume",
        )
    if status["version"] != __version__:
        yield Finding(
            "version",
            "note",
            f"the daemon is {status['version']}, what is installed {__version__}",
            "atlasd stop, then atlasd start",
        )


def port(folders: Paths) -> Iterator[Finding]:
    server = load(folders.config_file).server
    if not server.port:
        yield Finding("port", "note", "HTTP on TCP is switched off (server.port = 0)")
    elif is_locked(folders):
        status = Connection(folders).call("GET", "/atlasd/v1/status", timeout=5)
        port = status["http"]["port"]
        if port == server.port:
            yield Finding("port", "ok", str(port))
        else:
            said = f"{port or 'off'}: given at the start, or {server.port} was taken"
            yield Finding("port", "note", said)
    else:
        try:
            for listener in listen_on_tcp(server.host, server.port, exactly=True):
                listener.close()
            yield Finding("port", "ok", f"{server.port} is free")
        except AtlasdError as error:
            yield Finding("port", "note", error.message, error.hint)


def model(folders: Paths) -> Iterator[Finding]:
    from atlasd.models.hub import cached_snapshot
    from atlasd.models.locate import HUB_ID, find_model

    name = load(folders.config_file).model.name
    if HUB_ID.fullmatch(name) and not Path(name).exists() and cached_snapshot(name) is None:
        yield Finding("model", "note", f"{name} is downloaded at the next start")
        return
    try:
        files = find_model(name, folders)
    except AtlasdError as error:
        yield Finding("model", "bad", error.message, error.hint)
        return
    held = memory()
    if files.weight_bytes > held.bytes:
        yield Finding(
            "model",
            "bad",
            f"{name} ({size(files.weight_bytes)}) does not fit in {held.described}",
            "Choose a smaller one: atlasd models",
        )
    else:
        yield Finding("model", "ok", f"{name} ({size(files.weight_bytes)})")
