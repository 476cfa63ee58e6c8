"""The checks of ``atlasd doctor``, one function each."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from atlasd.commands.connection import Connection
from atlasd.commands.hardware import gpus, memory
from atlasd.commands.output import size
from atlasd.config import load
from atlasd.errors import AtlasdError, ConfigError, NotRunningError
from atlasd.listeners import SOCKET_PATH_BYTES, is_locked, listen_on_tcp
from atlasd.paths import Paths, paths

LEAST_DISK = 200 * 2**20
WATCHES_WANTED = 65536


@dataclass(frozen=True)
class Finding:
    """What one check found. ``bad`` needs mending; ``note`` is worth knowing."""

    name: str
    verdict: Literal["ok", "note", "bad"]
    message: str
    mend: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_all() -> list[Finding]:
    """Every check; one that fails itself is a finding too."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check(paths())
        except ConfigError:
            continue  # the check of the settings has told it
        except Exception as error:
            name = check.__name__.strip("_").replace("_", " ")
            found.append(Finding(name, "bad", f"{type(error).__name__}: {error}"))
    return found


def _python(folders: Paths) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"{version} at {sys.executable}")


def _torch(folders: Paths) -> Iterator[Finding]:
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        yield Finding("torch", "bad", "not installed", "pip install 'torch>=2.11,<2.16'")
        return
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    if (2, 11) <= numbers < (2, 16):
        yield Finding("torch", "ok", version)
    else:
        yield Finding(
            "torch", "bad", f"{version} is not 2.11 to 2.15", "pip install 'torch>=2.11,<2.16'"
        )


# In a process of its own: the daemon's side imports no kernels.
KERNELS = """
import json
from atlasd_kernels import cpu
loads, reason = cpu.available()
print(json.dumps([cpu.instruction_sets()[0] if loads else None, reason]))
"""


def _kernels(folders: Paths) -> Iterator[Finding]:
    done = subprocess.run(
        [sys.executable, "-c", KERNELS], capture_output=True, text=True, timeout=60, check=False
    )
    best, reason = (
        json.loads(done.stdout) if done.returncode == 0 else (None, done.stderr.strip()[-200:])
    )
    if best:
        # One line there says which instructions of the processor cannot be used.
        said = f"{best}; {done.stderr.strip()}" if done.stderr.strip() else best
        yield Finding("native CPU kernels", "ok", f"they load; instruction set: {said}")
    else:
        yield Finding(
            "native CPU kernels",
            "note",
            f"{reason}; the slower torch path is used on the CPU",
            "Install a C++ compiler (g++), then install atlasd again.",
        )


def _hardware(folders: Paths) -> Iterator[Finding]:
    found = gpus()
    said = ", ".join(f"{name} ({size(held)})" for name, held in found)
    yield Finding("GPU", "ok" if found else "note", said or "none found; the CPU is used")


def _settings(folders: Paths) -> Iterator[Finding]:
    file = folders.config_file
    try:
        config = load(file)
    except AtlasdError as error:
        yield Finding("settings", "bad", error.message, error.hint)
        return
    said = f"{file}" if file.exists() else "all at their defaults (no config.toml is needed)"
    given = f"; set: {', '.join(sorted(config.explicit))}" if config.explicit else ""
    yield Finding("settings", "ok", said + given)


def _folders(folders: Paths) -> Iterator[Finding]:
    named = {
        "config": folders.config,
        "data": folders.data,
        "cache": folders.cache,
        "state": folders.state,
        "runtime": folders.runtime,
    }
    for name, folder in named.items():
        if not folder.exists():
            yield Finding(f"{name} folder", "ok", f"{folder} (made at the first start)")
        elif not os.access(folder, os.W_OK | os.X_OK):
            yield Finding(
                f"{name} folder", "bad", f"{folder} cannot be written", f"chmod u+rwx {folder}"
            )
        elif folder.stat().st_mode & 0o022:
            yield Finding(
                f"{name} folder",
                "bad",
                f"{folder} can be written by others",
                f"chmod go-w {folder}",
            )
        else:
            yield Finding(f"{name} folder", "ok", str(folder))
    existing = next(one for one in (folders.data, *folders.data.parents) if one.exists())
    free = shutil.disk_usage(existing).free
    if free < LEAST_DISK:
        yield Finding("disk", "bad", f"only {size(free)} left at {existing}", "Make room there.")


def _secrets(folders: Paths) -> Iterator[Finding]:
    for name, file in (("token", folders.data / "token"), ("database", folders.database)):
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            yield Finding(name, "bad", f"{file} can be read by others", f"chmod 600 {file}")


def _socket(folders: Paths) -> Iterator[Finding]:
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


def _port(folders: Paths) -> Iterator[Finding]:
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


def _database(folders: Paths) -> Iterator[Finding]:
    file = folders.database
    if not file.exists():
        yield Finding("database", "ok", f"{file} (made at the first start)")
        return
    mend = f"Move it away, and a new one is made: mv {file} {file}.broken"
    try:
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5)
        try:
            verdict = connection.execute("PRAGMA quick_check").fetchone()[0]
        finally:
            connection.close()
    except sqlite3.Error as error:
        yield Finding("database", "bad", f"{file}: {error}", mend)
        return
    if verdict == "ok":
        yield Finding("database", "ok", f"{file} ({size(file.stat().st_size)})")
    else:
        yield Finding("database", "bad", f"{file}: {verdict}", mend)


def _model(folders: Paths) -> Iterator[Finding]:
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


def _watches(folders: Paths) -> Iterator[Finding]:
    limit = Path("/proc/sys/fs/inotify/max_user_watches")
    if limit.exists() and int(limit.read_text()) < WATCHES_WANTED:
        yield Finding(
            "file watching",
            "note",
            f"only {limit.read_text().strip()} folders can be watched",
            f"sudo sysctl fs.inotify.max_user_watches={8 * WATCHES_WANTED}",
        )


def _editors(folders: Paths) -> Iterator[Finding]:
    names = {"nvim": "neovim", "code": "vscode", "codium": "vscode", "hx": "helix", "zed": "zed"}
    found = [
        f"{tool} (atlasd connect {client})" for tool, client in names.items() if shutil.which(tool)
    ]
    yield Finding("editors", "ok" if found else "note", ", ".join(found) or "none found on PATH")
    beside = Path(sys.executable).with_name("atlasd-lsp")
    bridge = shutil.which("atlasd-lsp")
    if bridge:
        yield Finding("bridge", "ok", bridge)
    elif beside.exists():
        yield Finding(
            "bridge", "note", f"{beside} is not on PATH", f'export PATH="{beside.parent}:$PATH"'
        )
    else:
        yield Finding("bridge", "bad", "atlasd-lsp is not installed", "Install atlasd again.")


CHECKS: tuple[Callable[[Paths], Iterator[Finding]], ...] = (
    _python,
    _torch,
    _kernels,
    _hardware,
    _settings,
    _folders,
    _secrets,
    _socket,
    _port,
    _database,
    _model,
    _watches,
    _editors,
)
