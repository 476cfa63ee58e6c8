"""From what was noticed to what is to be done: which files of a root to look at, which are gone."""

from __future__ import annotations

import heapq
import os
import stat
import time
from collections.abc import Callable, Iterable
from pathlib import PurePosixPath

from atlasd.workspace.ignore import IGNORE_FILES, IgnoreRules
from atlasd.workspace.repository import Repository
from atlasd.workspace.scan import Found, enterable, scan
from atlasd.workspace.task import POLL_S, Counts, Gone, Look, Task, Work

GIT_EXCLUDE = ".git/info/exclude"
ALONE_FILES = 16
"""Changes of up to so many files at once are somebody's edits; more are a branch switch."""
_LISTED_PER_STEP = 64
_COMPARED_PER_STEP = 4096


def look_through(task: Task, again: bool, tell: Callable[[], None]) -> Work:
    """The whole root: list it, then every file, the latest changed first, then what is gone."""
    repository = task.repository
    started = time.monotonic()
    repository.rules = IgnoreRules(repository.root)
    repository.state = "scanning"
    task.counts = Counts()
    _look_for_root(task)
    add = task.watch.add if task.watch else lambda folder: None
    if (repository.root / ".git" / "info").is_dir():
        add(".git/info")
    # Sorted as they come and merged as they go: sorting a hundred thousand would be one long step.
    listed: list[list[Found]] = [[]]
    present: set[str] = set()
    for found in scan(repository.root, repository.rules, "", add):
        if found is not None:
            listed[-1].append(found)
            present.add(found.path)
        if found is None or len(listed[-1]) == _LISTED_PER_STEP:
            task.counts.total = len(present)
            yield None
        if len(listed[-1]) == _LISTED_PER_STEP:
            listed[-1].sort(key=_latest_first)
            listed.append([])
    listed[-1].sort(key=_latest_first)
    task.counts.total = len(present)
    repository.state = "indexing"
    tell()
    for number, path in enumerate(repository.below("")):
        if path not in present:
            yield Gone(path)
        elif number % _COMPARED_PER_STEP == 0:
            yield None
    for found in heapq.merge(*listed, key=_latest_first):
        task.counts.files += 1
        task.counts.path = found.path
        yield Look(found, again=again)
    if task.cache:
        task.cache.keep_only(present, repository.root)
    # Looking through a large root takes long; it must not become all there is to do.
    wait = max(POLL_S, 20 * (time.monotonic() - started))
    task.poll_at = time.monotonic() + wait if task.unwatched or task.missing else 0.0


def _latest_first(found: Found) -> tuple[int, str]:
    return -found.mtime_ns, found.path


def _look_for_root(task: Task) -> None:
    """Removed, or on a disk that is not there at the moment: what it held is dropped from the
    index, and back again when the root is."""
    repository = task.repository
    missing = not repository.root.is_dir()
    if missing != task.missing:
        task.missing = missing
        repository.notice = f"{repository.root} is gone; it is looked for." if missing else ""


def look_at(task: Task, paths: Iterable[str]) -> Work:
    """Paths where something changed: files, folders, or nothing any more."""
    repository = task.repository
    ordered = sorted(paths)
    alone = len(ordered) <= ALONE_FILES
    for path in ordered:
        if path in ("", GIT_EXCLUDE) or PurePosixPath(path).name in (*IGNORE_FILES, ".git"):
            task.rescan()
            return
    for path in ordered:
        if path.startswith(".git/"):
            continue
        yield from _look_at_one(task, repository, path, alone)
        yield None


def _look_at_one(task: Task, repository: Repository, path: str, alone: bool) -> Work:
    if path not in repository:
        repository.rules.forget(path)
    found = repository.find(path)
    present: set[str] = set()
    if found is not None:
        yield Look(found, content=True, alone=alone)
    else:
        if path in repository:
            yield Gone(path)
        if _is_folder(repository, path) and enterable(repository.root, repository.rules, path):
            add = task.watch.add if task.watch else lambda folder: None
            for inner in scan(repository.root, repository.rules, path, add):
                if inner is None:
                    yield None
                    continue
                present.add(inner.path)
                yield Look(inner, content=True)
    for inner_path in repository.below(path):
        if inner_path not in present:
            yield Gone(inner_path)


def _is_folder(repository: Repository, path: str) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(repository.root / path).st_mode)
    except OSError:
        return False
