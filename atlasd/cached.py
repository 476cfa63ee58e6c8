"""The cache folder: packed weights, tokens of files, what drafting learned. Seen, and removed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from atlasd import expiry
from atlasd.paths import forget_learned

WHAT = {
    "weights": "model weights, packed for this machine",
    "tokens": "tokens of watched files",
    "days": "the last days of use",
    "drafting": "what drafting learned: index, adapters",
}
"""What the known folders hold; anything else in there is ours, too."""


def summary(cache: Path) -> list[dict[str, Any]]:
    """``{name, path, what, files, bytes}`` of each folder in the cache."""
    found = []
    for folder in sorted(cache.iterdir()) if cache.is_dir() else ():
        sizes = [_size(file) for file in _files(folder)]
        found.append(
            {
                "name": folder.name,
                "path": str(folder),
                "what": WHAT.get(folder.name, ""),
                "files": len(sizes),
                "bytes": sum(sizes),
            }
        )
    return found


def kept(cache: Path) -> dict[str, int]:
    """For how many ``days`` of use something is kept that nobody opens, and how many ``bytes``
    there may be; beyond, what was not opened for longest goes first."""
    existing = next(one for one in (cache, *cache.parents) if one.exists())
    return {"days": expiry.KEPT_DAYS, "bytes": expiry.most_bytes(existing)}


def purge(cache: Path, repository: str | None) -> int:
    """Delete what was kept of a repository (None: everything); how many files went.

    The position index holds text of all repositories in one file, so it goes either way; a running
    engine still has the others' part and writes it anew.
    """
    before = _count(cache)
    if repository is None:
        for entry in cache.iterdir() if cache.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)
    else:
        forget_learned(cache, repository)
        for index in cache.glob("drafting/*/positions.index"):
            index.unlink(missing_ok=True)
    return before - _count(cache)


def _count(folder: Path) -> int:
    return len(_files(folder))


def _files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    return [Path(at, name) for at, _, names in os.walk(folder) for name in names]


def _size(file: Path) -> int:
    try:
        return file.lstat().st_size
    except OSError:
        return 0
