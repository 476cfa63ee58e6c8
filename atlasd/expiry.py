"""The cache folder cleans itself: what nobody has opened for long goes, and what is too much of it.

All of it can be had again: weights are packed from the checkpoint, tokens read from the files, and
drafting learns anew. What is in use stays, and so does whatever has been opened lately: a home
folder may be another machine's, too.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from atlasd.paths import learned_folder_name

log = logging.getLogger(__name__)

DAY_S = 86400.0
KEPT_DAYS = 60
"""What was not opened on so many days of use goes. Days of use, not of the calendar: whoever comes
back from a long leave finds all as it was, and a clock that jumps by years is one more day."""

DAYS = "days"
"""The file in the cache folder that holds the last days of use, a number to a line."""

MOST_BYTES = 64 << 30
DISK_SHARE = 4
"""The cache has this part of its disk at most (a quarter), or ``MOST_BYTES``. Beyond, what was not
opened for longest goes first."""

LATELY_S = 2 * DAY_S
"""What was opened since then stays, however much it is."""


@dataclass(frozen=True)
class Item:
    """What goes as a whole: a file, or a folder with all in it."""

    path: Path
    bytes: int
    opened: float
    """Seconds since the epoch; whoever opens it says so by setting its time."""
    inodes: frozenset[int]

    @property
    def half_written(self) -> bool:
        """Whether it would have been moved to its place, had the process lived."""
        return self.path.name.startswith(".")


def items(cache: Path) -> list[Item]:
    """Everything that can go, that opened longest ago first."""
    drafting = [
        path
        for path in cache.glob("drafting/*/*")
        if path.name != "adapter" or not path.is_dir() or path.is_symlink()
    ]
    adapters = cache.glob("drafting/*/adapter/*")
    found = [_item(path) for path in (*cache.glob("weights/*"), *cache.glob("tokens/*"), *adapters)]
    # The folder of a tokenizer has the time when a model with it was loaded last.
    found += [_item(path, path.parent) for path in drafting]
    return sorted((one for one in found if one is not None), key=lambda one: one.opened)


def most_bytes(cache: Path) -> int:
    """How large the cache may become on this disk."""
    return min(MOST_BYTES, shutil.disk_usage(cache).total // DISK_SHARE)


def mark_opened(cache: Path, fingerprint: str, repositories: Iterable[str | None]) -> None:
    """A model with this tokenizer is in use, and these repositories are open."""
    drafting = cache / "drafting" / fingerprint
    adapters = (drafting / "adapter" / learned_folder_name(one) for one in repositories)
    for folder in (drafting, *adapters):
        with contextlib.suppress(OSError):
            os.utime(folder)


def mark_held(cache: Path, pid: int | None) -> None:
    """What this process holds is in use, for however many days it has."""
    if pid is None or not (held := _held_by(pid, cache)):
        return
    for item in items(cache):
        if item.inodes & held:
            with contextlib.suppress(OSError):
                os.utime(item.path)


def count_day(cache: Path, now: float | None = None) -> None:
    """This is a day of use."""
    today = int((time.time() if now is None else now) // DAY_S)
    days = _days(cache)
    if today in days:
        return
    beside = cache / f".{DAYS}.{os.getpid()}"
    beside.write_text("".join(f"{day}\n" for day in [*days, today][-KEPT_DAYS:]))
    beside.replace(cache / DAYS)


def _days(cache: Path) -> list[int]:
    """The last days of use, oldest first; none where the file is missing or damaged."""
    try:
        return [int(line) for line in (cache / DAYS).read_text().split()]
    except (OSError, ValueError):
        return []


def _first_kept(cache: Path) -> float:
    """What was opened before goes; nothing before there were ``KEPT_DAYS`` of use."""
    days = sorted(_days(cache))
    return days[0] * DAY_S if len(days) >= KEPT_DAYS else 0.0


def sweep(cache: Path, now: float | None = None) -> list[Item]:
    """Remove what has not been opened for ``KEPT_DAYS``, then what is too much; what went."""
    now = time.time() if now is None else now
    first_kept = _first_kept(cache)
    kept = items(cache)
    over = sum(one.bytes for one in kept) - most_bytes(cache) if kept else 0
    held, gone = None, list[Item]()
    for one in kept:
        unopened_s = now - one.opened
        too_old = one.opened < first_kept or (one.half_written and unopened_s > LATELY_S)
        if not too_old and (over <= 0 or unopened_s < LATELY_S):
            continue
        held = _held(cache) if held is None else held
        if not one.inodes & held and _removed(one, cache):
            gone.append(one)
            over -= one.bytes
    return gone


def _item(path: Path, *more: Path) -> Item | None:
    """None for what has just gone."""
    try:
        inside = [path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())]
        stats = [one.lstat() for one in inside]
        times = [one.st_mtime for one in (*stats, *(one.lstat() for one in more))]
    except OSError:
        return None
    size = sum(one.st_size for one in stats)
    return Item(path, size, max(times), frozenset(one.st_ino for one in stats))


def _removed(item: Item, cache: Path) -> bool:
    try:
        if item.path.is_dir() and not item.path.is_symlink():
            shutil.rmtree(item.path)
        else:
            item.path.unlink()
        for above in item.path.parents:
            if above.parent == cache:
                break
            above.rmdir()  # once nothing is left in it
    except OSError as error:
        if item.path.exists():
            log.warning("%s could not be removed: %s", item.path, error.strerror)
            return False
    return True


def _held(cache: Path) -> set[int]:
    """The files that any process has open or mapped, as far as this user may see."""
    held = set()
    for folder in Path("/proc").glob("[0-9]*"):
        held |= _held_by(int(folder.name), cache)
    return held


def _held_by(pid: int, cache: Path) -> set[int]:
    """By their inode numbers: what is mapped is told by paths that differ between containers."""
    return {*_mapped(pid), *_open(pid, os.fspath(cache.resolve()))}


def _mapped(pid: int) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/maps").read_bytes().splitlines():
            yield int(line.split(maxsplit=5)[4])


def _open(pid: int, cache: str) -> Iterator[int]:
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                # Not the file itself, unless it is ours: it may be on a disk that does not answer.
                if (path := os.readlink(entry.path)).startswith(cache):
                    yield os.stat(path).st_ino
