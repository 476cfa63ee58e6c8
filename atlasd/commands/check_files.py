"""What ``atlasd doctor`` checks of atlasd's own files: settings, folders, database."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path

from atlasd import cached
from atlasd.commands.data import kept_for
from atlasd.commands.finding import Finding
from atlasd.commands.output import size
from atlasd.config import load
from atlasd.errors import AtlasdError
from atlasd.paths import Paths

LEAST_DISK = 200 * 2**20
FULL_DISK = 2**20
ELSEWHERE = "Make it writable, or set ATLASD_HOME to a folder that is."


def settings(folders: Paths) -> Iterator[Finding]:
    file = folders.config_file
    try:
        config = load(file)
    except AtlasdError as error:
        yield Finding("settings", "bad", error.message, error.hint)
        return
    said = f"{file}" if file.exists() else "all at their defaults (no config.toml is needed)"
    given = f"; set: {', '.join(sorted(config.explicit))}" if config.explicit else ""
    yield Finding("settings", "ok", said + given)


def own_folders(folders: Paths) -> Iterator[Finding]:
    named = {
        "config": folders.config,
        "data": folders.data,
        "cache": folders.cache,
        "state": folders.state,
        "runtime": folders.runtime,
    }
    for name, folder in named.items():
        yield _folder(f"{name} folder", folder)
    existing = _existing(folders.data)
    free = shutil.disk_usage(existing).free
    if free < LEAST_DISK:
        yield Finding("disk", "bad", f"only {size(free)} left at {existing}", "Make room there.")


def cache(folders: Paths) -> Iterator[Finding]:
    held, kept = (
        sum(one["bytes"] for one in cached.summary(folders.cache)),
        cached.kept(folders.cache),
    )
    yield Finding("cache", "ok", f"{size(held)}; {kept_for(kept)}")


def secrets(folders: Paths) -> Iterator[Finding]:
    for name, file in (("token", folders.data / "token"), ("database", folders.database)):
        if file.exists() and stat.S_IMODE(file.stat().st_mode) & 0o077:
            yield Finding(name, "bad", f"{file} can be read by others", f"chmod 600 {file}")


def database(folders: Paths) -> Iterator[Finding]:
    file = folders.database
    if not file.exists():
        yield Finding("database", "ok", f"{file} (made at the first start)")
        return
    mend = f"Move it away, and a new one is made: mv {file} {file}.broken"
    if not file.is_file():  # to open a pipe would wait for whoever writes to it
        yield Finding("database", "bad", f"{file} is no file", mend)
        return
    if shutil.disk_usage(file.parent).free < FULL_DISK:
        mend = "The disk is full, which may be all that is wrong: make room there first."
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


def _folder(name: str, folder: Path) -> Finding:
    if not folder.exists():
        above = _existing(folder)
        if _writable(above):
            return Finding(name, "ok", f"{folder} (made at the first start)")
        return Finding(name, "bad", f"{folder} cannot be made: {above} is not writable", ELSEWHERE)
    mode = folder.stat().st_mode
    if not _writable(folder):
        # On a read-only file system no mode helps.
        mend = ELSEWHERE if mode & stat.S_IRWXU == stat.S_IRWXU else f"chmod u+rwx {folder}"
        return Finding(name, "bad", f"{folder} cannot be written", mend)
    if mode & 0o022:
        return Finding(name, "bad", f"{folder} can be written by others", f"chmod go-w {folder}")
    return Finding(name, "ok", str(folder))


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _existing(folder: Path) -> Path:
    """The folder, or the innermost one above it that there is."""
    return next(one for one in (folder, *folder.parents) if one.exists())
