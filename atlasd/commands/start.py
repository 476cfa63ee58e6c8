"""``atlasd start``: the daemon in the background, ready when this returns."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from atlasd import __version__
from atlasd.commands import stop
from atlasd.commands.address import base_url
from atlasd.commands.connection import Connection
from atlasd.commands.models import meant
from atlasd.commands.output import counted, styled
from atlasd.commands.progress import follow
from atlasd.commands.status import NO_STORE
from atlasd.config import load
from atlasd.errors import AtlasdError, NotRunningError, RequestError
from atlasd.listeners import Running
from atlasd.paths import Paths, expanded, is_locked, own_paths, paths

UP_S = 60.0
"""Longest time until health answers; it takes well under a second on an idle machine."""

ANSWER_S = 5.0
"""A daemon that listens answers within milliseconds, if it is not stopped or stuck."""

ALREADY_RUNNING = 3
"""Exit status of the background process when another daemon holds the lock."""

LEAST_FREE = 1 << 16
"""Bytes without which no daemon can start: it writes its port, its token and why it ended."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd start", description="Start the daemon and wait until the model is ready."
    )
    made.add_argument(
        "--model", help="bundled, a folder, a .gguf file, a Hugging Face id or a name of Ollama's"
    )
    made.add_argument("--port", type=int, help="TCP port (8012); 0 for the UNIX socket alone")
    made.add_argument("--host", help="address to listen on (127.0.0.1)")
    made.add_argument("--drafting", choices=("on", "off"), help="on unless told otherwise")
    made.add_argument("--foreground", action="store_true", help="stay in this terminal")
    made.add_argument("--no-wait", action="store_true", help="do not wait for the model")
    return made


def run(options: argparse.Namespace) -> int:
    """0 when ready (also when it ran already), 1 when it cannot be."""
    given = chosen(options)
    folders = paths()
    config = load(folders.config_file, options=given)
    if is_locked(folders):
        return _already(folders, given, wait=not options.no_wait)
    if options.foreground:
        from atlasd.run import serve

        return serve(given, foreground=True)
    try:
        if not _launch(folders, given):
            return _already(folders, given, wait=not options.no_wait)
        if options.no_wait:
            print("atlasd loads the model in the background; see: atlasd status")
            return 0
        last = follow(Connection(folders).events("GET", "/atlasd/v1/progress"))
    except KeyboardInterrupt:
        print("\natlasd goes on loading in the background; `atlasd stop` ends it.")
        raise
    if last.get("state") == "failed":
        # Whoever named a model that does not work wants to name another, not to stop this first.
        stop.end(folders)
        message = last.get("error") or "The model could not be loaded."
        raise AtlasdError(message, meant(config.model.name) + last.get("hint", ""))
    _tell(Connection(folders).call("GET", "/atlasd/v1/status", timeout=30), config.server.port)
    return 0


def chosen(options: argparse.Namespace) -> dict[str, Any]:
    """The options as settings by their dotted names."""
    model = options.model
    if model is not None and not model.strip():
        raise RequestError("--model is empty.", "What there is: atlasd models")
    if model is not None and expanded(model).exists():
        model = str(expanded(model).absolute())
    return {
        "model.name": model,
        "server.port": options.port,
        "server.host": options.host,
        "engine.drafting": None if options.drafting is None else options.drafting == "on",
    }


def _already(folders: Paths, given: dict[str, Any], *, wait: bool) -> int:
    running = Running.read(folders)
    who = f" (pid {running.pid}, model {running.model})" if running else ""
    if changes := _changes(running, given) if running else []:
        raise AtlasdError(
            f"atlasd is already running{who}, with another {changes[0]}.",
            f"To change it: atlasd stop && atlasd start {_words(given)}",
        )
    drafting = given["engine.drafting"]
    if wait or drafting is not None:
        _wait_for_an_answer(folders)
    print(f"atlasd is already running{who}.")
    if folders != own_paths():
        # Two shells of one user may differ in XDG_RUNTIME_DIR.
        print(f"It was started from another environment; its socket is {folders.socket}")
    if running and running.version != __version__:
        print(
            f"It is version {running.version} and this is {__version__}: atlasd stop, then start"
            " again."
        )
    if drafting is not None:
        Connection(folders).call("POST", "/atlasd/v1/drafting", {"on": drafting}, timeout=10)
        print(f"Drafting is {'on' if drafting else 'off'}.")
    if wait:
        last = follow(Connection(folders).events("GET", "/atlasd/v1/progress"))
        if last.get("state") == "failed":
            raise AtlasdError(
                last.get("error") or "Its model could not be loaded.", last.get("hint", "")
            )
    return 0


def _words(given: dict[str, Any]) -> str:
    """The options as they are typed."""
    options = {"model.name": "--model", "server.port": "--port", "server.host": "--host"}
    typed = [(options[name], str(given[name])) for name in options if given[name] is not None]
    return shlex.join(word for pair in typed for word in pair)


def _wait_for_an_answer(folders: Paths) -> None:
    """Until whoever holds the lock answers, which one that has just started does in a moment.
    Raises AtlasdError where it holds the lock and says nothing."""
    deadline = time.monotonic() + UP_S
    while True:
        try:
            Connection(folders).call("GET", "/atlasd/v1/status", timeout=ANSWER_S)
            return
        except NotRunningError:
            if not is_locked(folders) or time.monotonic() > deadline:
                raise
            time.sleep(0.03)


def _changes(running: Running, given: dict[str, Any]) -> list[str]:
    """Settings that were given and are other ones in the daemon that runs."""
    known: dict[str, Any] = {"model.name": running.model, "server.port": running.port or 0}
    if running.host is not None:  # else TCP is off, and any address is as good
        known["server.host"] = running.host
    return [name for name in known if given[name] not in (None, known[name])]


def _launch(folders: Paths, given: dict[str, Any]) -> bool:
    """Start the background process and wait until it answers; False if another was faster. Raises
    UnicodeEncodeError for what is no text, a folder's name perhaps."""
    for value in given.values():
        str(value).encode()
    folders.create()
    said = folders.state / "start.log"
    settings = [
        f"--set={name}={json.dumps(value)}" for name, value in given.items() if value is not None
    ]
    with open(said, "w", encoding="utf-8", opener=_private) as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "atlasd.run", *settings],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    deadline = time.monotonic() + UP_S
    while time.monotonic() < deadline:
        if process.poll() == ALREADY_RUNNING:
            return False
        if process.poll() is not None:
            raise _ended(said, folders)
        try:
            Connection(folders).call("GET", "/atlasd/v1/status", timeout=ANSWER_S)
            return True
        except NotRunningError:
            time.sleep(0.03)
    raise AtlasdError("The daemon does not answer.", f"See {folders.log}; try: atlasd doctor")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _ended(said: Path, folders: Paths) -> AtlasdError:
    """Why the background process ended before it answered; on a full disk it cannot say so."""
    last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    if last:
        return AtlasdError(last[-1])
    for folder in (folders.runtime, folders.state, folders.data):
        if shutil.disk_usage(folder).free < LEAST_FREE:
            return AtlasdError(f"The disk is full at {folder}.", "Make room there.")
    return AtlasdError("The daemon ended at once.", f"See {folders.log}")


def _tell(status: dict[str, Any], wanted_port: int) -> None:
    model, http = status["model"], status["http"]
    threads = f", {counted(model['threads'], 'thread')}" if model.get("threads") else ""
    print(
        f"{styled('Ready:', 'bold', 'green')} {model['name']} on {model.get('backend', '?')}"
        f" ({model.get('dtype', '?')}{threads}),"
        f" {model.get('slots', '?')} slots of {model.get('slot_tokens', '?')} tokens"
    )
    if http["port"]:
        print(f"HTTP:  {base_url(http['host'], http['port'])}/v1")
        if http["port"] != wanted_port:
            print(styled(f"       (port {wanted_port} is used by another program)", "yellow"))
    if not status["store"]:
        print(styled(f"Nothing is stored: {NO_STORE}", "yellow"))
    print("\nNext:  atlasd connect neovim       (or vscode, llama.vim, continue, zed, …)")
    print("       atlasd complete FILE:LINE:COL")
    print("       atlasd status · atlasd top · atlasd stop")
    folder = Path(sys.executable).parent
    if shutil.which("atlasd") is None and (folder / "atlasd").exists():
        print(f'Once:  export PATH="{folder}:$PATH"    (for the command atlasd)')
