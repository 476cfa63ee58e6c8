"""Walking a root: every file that may be read, folder by folder, symlinks left alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from atlasd.workspace.ignore import Folder, IgnoreRules
from atlasd.workspace.language import language_of
from atlasd.workspace.never import MARKERS, MAX_BYTES, never_directory, never_file


@dataclass(frozen=True, slots=True)
class Found:
    """A file that may be read; ``path`` is relative to the root with ``/`` between its parts."""

    path: str
    language: str
    size: int
    mtime_ns: int


def scan(
    root: Path,
    rules: IgnoreRules,
    below: str = "",
    entering: Callable[[str], None] = lambda folder: None,
) -> Iterator[Found | None]:
    """Files below a folder of the root, in a fixed order, and None after other steps. ``entering``
    is called with each folder before its entries are read, so that a watch set there misses
    nothing. A file that cannot be listed or has vanished is passed over; symlinks are not followed,
    wherever they lead."""
    waiting = [below]
    while waiting:
        folder = waiting.pop()
        entering(folder)
        try:
            with os.scandir(root / folder) as entries:
                listed = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        names = {entry.name for entry in listed}
        if folder and not MARKERS.isdisjoint(names):
            continue
        here = (
            rules.enter(rules.folder(_above(folder)), folder, names) if folder else rules.folder("")
        )
        yield from here.prepare()
        prefix = f"{folder}/" if folder else ""
        inner: list[str] = []
        for entry in listed:
            path = prefix + entry.name
            if _is_folder(entry):
                if not never_directory(entry.name, names) and not here.ignores(path, True):
                    inner.append(path)
            elif found := _readable(entry, path, here):
                yield found
        waiting.extend(reversed(inner))


def allowed(root: Path, rules: IgnoreRules, path: str) -> bool:
    """Whether a file of this path may be read at all, be it there or not."""
    if not _sayable(path) or language_of(path.rpartition("/")[2]) is None:
        return False
    return not withheld(root, rules, path) and not (root / path).is_symlink()


def withheld(root: Path, rules: IgnoreRules, path: str) -> bool:
    """Whether a file is ignored or never read, whatever language it is in: what is written in it
    is the business of nobody but its editor."""
    above, _, name = path.rpartition("/")
    if name in ("", "..") or never_file(name):
        return True
    return bool(above and not enterable(root, rules, above)) or rules.ignored(path)


def find(root: Path, rules: IgnoreRules, path: str) -> Found | None:
    """What ``scan`` would yield for one path, None if it would not."""
    if not allowed(root, rules, path):
        return None
    try:
        status = os.lstat(root / path)
    except OSError:
        return None
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
        return None
    language = language_of(path)
    return Found(path, language, status.st_size, status.st_mtime_ns) if language else None


def enterable(root: Path, rules: IgnoreRules, folder: str) -> bool:
    """Whether ``scan`` would enter a folder."""
    parts = folder.split("/")
    if any(part in ("", ".", "..") for part in parts):
        return False
    for depth, name in enumerate(parts):
        parent = root.joinpath(*parts[:depth])
        here = parent / name
        if never_directory(name, _Beside(parent)) or here.is_symlink():
            return False
        if any((here / marker).exists() for marker in MARKERS):
            return False
    return not rules.ignored(folder, True)


class _Beside:
    """The names in a folder, looked up one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, name: object) -> bool:
        return (self.folder / str(name)).exists()


def _readable(entry: os.DirEntry[str], path: str, here: Folder) -> Found | None:
    language = language_of(entry.name)
    if (
        language is None
        or not _sayable(entry.name)
        or never_file(entry.name)
        or here.ignores(path, False)
    ):
        return None
    try:
        if not entry.is_file(follow_symlinks=False):
            return None
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    if status.st_size > MAX_BYTES:
        return None
    return Found(path, language, status.st_size, status.st_mtime_ns)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return _sayable(entry.name) and entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _sayable(path: str) -> bool:
    """False for names that are no text: neither the engine nor the store could be told them."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _above(folder: str) -> str:
    return folder.rpartition("/")[0]
