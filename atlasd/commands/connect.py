"""``atlasd connect NAME``: exactly what to paste into an editor or client, token and port in it."""

from __future__ import annotations

import argparse
import difflib
import shutil
import sys
from pathlib import Path
from typing import Any

from atlasd.commands.address import reached_at
from atlasd.commands.clients import CLIENTS, UNKNOWN_CONTEXT, Place
from atlasd.commands.connection import Connection
from atlasd.commands.output import print_json, styled
from atlasd.config import load
from atlasd.errors import AtlasdError, RequestError
from atlasd.listeners import Running
from atlasd.paths import Paths, is_locked, paths
from atlasd.server.auth import known_token, secret_token


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd connect",
        description="Print what to paste into an editor or client.",
        epilog="Known: " + ", ".join(CLIENTS),
    )
    made.add_argument("client", nargs="?", metavar="EDITOR|CLIENT")
    made.add_argument("--json", action="store_true", help="address and token for a script")
    return made


def run(options: argparse.Namespace) -> int:
    """0 when there is something to paste."""
    place = where(paths())
    if options.json:
        print_json(
            {
                "base_url": f"{place.base}/v1" if place.port else None,
                "token": place.token,
                "port": place.port,
                "socket": place.socket,
                "model": place.model,
            }
        )
        return 0
    if options.client is None:
        print("atlasd connect NAME, where NAME is one of:\n")
        print("\n".join(f"  {name:<14}{client.help}" for name, client in CLIENTS.items()))
        return 0
    client = CLIENTS.get(options.client.lower().removesuffix(".nvim"))
    if client is None:
        raise RequestError(f"{options.client!r} is not known.", _instead_of(options.client.lower()))
    print(styled(f"{client.comment} {client.where}", "dim"))
    print(client.paste(place).strip())
    warning = ""
    if not is_locked(paths()):
        warning = "atlasd is not running: atlasd start"
    elif client.http and not place.port:
        warning = "HTTP is off (server.port = 0): restart with --port 8012"
    if warning:
        print(styled(f"\n{client.comment} {warning}", "yellow"))
    return 0


def _instead_of(name: str) -> str:
    close = [known for known in CLIENTS if name in known]
    close = close or difflib.get_close_matches(name, CLIENTS)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    return "An editor that speaks LSP: atlasd connect lsp. All others: atlasd connect"


def where(folders: Paths) -> Place:
    """Where the daemon listens, or will, and what it serves there."""
    config = load(folders.config_file)
    running = Running.read(folders) if is_locked(folders) else None
    folders.create()
    host = (running.host if running else None) or config.server.host
    served = _served(folders) if running else {}
    context = served.get("meta", {}).get("n_ctx") or config.model.context
    return Place(
        host=reached_at(host),
        port=running.port if running else config.server.port,
        token=_token(folders, runs=running is not None),
        socket=str(folders.socket),
        model=served.get("id") or Path(running.model if running else config.model.name).name,
        source=Path(__file__).resolve().parents[2],
        bridge=_bridge(),
        context=context or UNKNOWN_CONTEXT,
    )


def _token(folders: Paths, runs: bool) -> str:
    """The token that clients need; a new one is no use to a daemon that runs."""
    files = folders.data / "token", folders.token
    if not runs:
        return secret_token(*files)
    if (token := known_token(*files)) is None:
        raise AtlasdError(
            f"The daemon's token is not in {files[0]} any more, or others could read it there.",
            "For a new one: atlasd stop, then atlasd start.",
        )
    return token


def _served(folders: Paths) -> dict[str, Any]:
    """The running daemon's model as ``/v1/models`` describes it; nothing if it does not say."""
    try:
        listed = Connection(folders).call("GET", "/v1/models", timeout=5)
    except AtlasdError:
        return {}
    described: dict[str, Any] = listed["data"][0]
    return described


def _bridge() -> str:
    """The bridge of this installation; editors do not have its folder on their PATH."""
    beside = Path(sys.executable).with_name("atlasd-lsp")
    return str(beside) if beside.exists() else shutil.which("atlasd-lsp") or "atlasd-lsp"
