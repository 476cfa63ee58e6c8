"""Tokenised files kept from run to run: one append-only file per root and tokenizer.

A restarted daemon, and an engine that was unloaded and comes back, get their segments from here
instead of tokenising a million lines again. It is a cache: whatever cannot be read is made anew.
A record is a header, the path, and four arrays (tokens, identifier and definition hashes, line
checksums); a later record of the same path replaces the earlier one; a torn tail is cut off. What
is replaced goes once it is more than what counts, and of roots not opened for longest all goes once
the files are too large together.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atlasd.workspace.analysis import Analysis
from atlasd.workspace.scan import Found

_MAGIC = b"atlasd tokens 1\n"
_SUFFIX, _FRESH = ".tokens", ".new"
_HEADER = struct.Struct("<IIqq16sIIIII")
"""checksum of the rest, bytes of the path, size, mtime_ns, hash, seconds, then four lengths."""
_MAX_WASTE = 16 << 20
_MAX_BYTES = 2 << 30
"""All token files together, that of the root opened last left aside."""
_LOADED_PER_STEP = 64
_RACY_SECONDS = 2
"""A file changed again within the clock's tick may keep its time; one cached so soon after its
change is compared by content."""


@dataclass(frozen=True)
class Cached:
    """A file's tokens and analysis as they were made from content of this hash."""

    size: int
    mtime_ns: int
    hash: bytes
    tokens: bytes
    analysis: Analysis
    settled: bool
    """False if the file may have changed without its time showing it."""

    def matches(self, found: Found) -> bool:
        return self.settled and (self.size, self.mtime_ns) == (found.size, found.mtime_ns)


class TokenCache:
    """Used by the indexing thread alone. Errors of the disk end caching, never indexing."""

    def __init__(self, path: Path, pause: Callable[[], None] = lambda: None) -> None:
        """``pause`` is called now and then while the records are looked through."""
        self.path = path
        self._pause = pause
        self._places: dict[str, tuple[int, int]] = {}
        self._live = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._end = self._load()
        os.utime(self._file)  # opened last
        with suppress(OSError):
            self._tidy()

    def get(self, path: str) -> Cached | None:
        place = self._places.get(path)
        record = os.pread(self._file, place[1], place[0]) if place else b""
        if len(record) < _HEADER.size or zlib.crc32(record[4:]) != _HEADER.unpack_from(record)[0]:
            return None
        _, name, size, mtime_ns, hash, seconds, *lengths = _HEADER.unpack_from(record)
        at = _HEADER.size + name
        arrays = []
        for length in lengths:
            arrays.append(record[at : at + 4 * length])
            at += 4 * length
        analysis = Analysis(*(np.frombuffer(array, np.uint32) for array in arrays[1:]))
        settled = seconds > mtime_ns // 10**9 + _RACY_SECONDS
        return Cached(size, mtime_ns, hash, arrays[0], analysis, settled)

    def put(self, found: Found, hash: bytes, tokens: bytes, analysis: Analysis, now: int) -> None:
        """``now``: seconds since the epoch, when the content was read."""
        parts = (analysis.identifiers, analysis.definitions, analysis.lines)
        lengths = (len(tokens) // 4, *(len(part) for part in parts))
        name = os.fsencode(found.path)
        header = _HEADER.pack(0, len(name), found.size, found.mtime_ns, hash, now, *lengths)
        record = b"".join([header[4:], name, tokens, *(part.tobytes() for part in parts)])
        record = struct.pack("<I", zlib.crc32(record)) + record
        os.pwrite(self._file, record, self._end)
        self._place(found.path, self._end, len(record))
        self._end += len(record)
        self._tidy()

    def keep_only(self, paths: set[str], root: Path) -> None:
        """Forget files that are gone; their records go at the next compaction. It comes at once
        where one is still there: it must not be read any more, so nothing of it may stay."""
        gone = self._places.keys() - paths
        for path in gone:
            self._live -= self._places.pop(path)[1]
        if any(os.path.lexists(root / path) for path in gone):
            with suppress(OSError):
                self._compact()

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _place(self, path: str, at: int, length: int) -> None:
        self._live += length - self._places.get(path, (0, 0))[1]
        self._places[path] = (at, length)

    def _load(self) -> int:
        """Find the records; returns where the next one goes."""
        size = os.fstat(self._file).st_size
        if os.pread(self._file, len(_MAGIC), 0) != _MAGIC:
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, _MAGIC, 0)
            return len(_MAGIC)
        at = len(_MAGIC)
        while len(head := os.pread(self._file, _HEADER.size + 1024, at)) >= _HEADER.size:
            _, name, *_, a, b, c, d = _HEADER.unpack_from(head)
            length = _HEADER.size + name + 4 * (a + b + c + d)
            if name > 1024 or at + length > size:
                break
            self._place(os.fsdecode(head[_HEADER.size : _HEADER.size + name]), at, length)
            at += length
            if len(self._places) % _LOADED_PER_STEP == 0:
                self._pause()
        os.ftruncate(self._file, at)
        return at

    def _tidy(self) -> None:
        if self._end - self._live > max(_MAX_WASTE, self._live):
            self._compact()

    def _compact(self) -> None:
        """Raises OSError, and nothing has changed, where there is no room or the file was removed
        meanwhile, by a purge perhaps."""
        fresh = self.path.with_suffix(_FRESH)
        target = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        places: dict[str, tuple[int, int]] = {}
        try:
            end = os.write(target, _MAGIC)
            for path, (at, length) in self._places.items():
                self._pause()
                if os.pwrite(target, os.pread(self._file, length, at), end) < length:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(fresh))
                places[path] = (end, length)
                end += length
            if not os.path.samestat(os.stat(self.path), os.fstat(self._file)):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
            os.replace(fresh, self.path)
        except BaseException:
            os.close(target)
            fresh.unlink(missing_ok=True)
            raise
        os.close(self._file)
        self._file, self._end, self._places = target, end, places


def cache_file(folder: Path, root: Path, key: str) -> Path:
    """Where the tokens of a root under a tokenizer are kept."""
    return folder / f"{_short(str(root))}-{_short(key)}{_SUFFIX}"


def root_of(file: Path, roots: Iterable[str]) -> str | None:
    """Which of these roots a token file belongs to."""
    return next((root for root in roots if file.name.startswith(f"{_short(root)}-")), None)


def remove_caches(folder: Path, root: Path | None) -> int:
    """Delete the token files of a root, or all; returns how many there were."""
    # A killed daemon may have left one that it was rewriting.
    whose = "*" if root is None else f"{_short(str(root))}-*"
    found = [*folder.glob(whose + _SUFFIX), *folder.glob(whose + _FRESH)]
    for path in found:
        path.unlink(missing_ok=True)
    return len(found)


def remove_oldest(folder: Path, most: int = _MAX_BYTES) -> None:
    """Delete the token files of roots not opened for longest, once those opened after them have
    ``most`` bytes; never that of the root opened last."""
    opened = [
        (path.stat().st_mtime_ns, path.stat().st_size, path) for path in folder.glob("*" + _SUFFIX)
    ]
    held = 0
    for _, size, path in sorted(opened, reverse=True)[1:]:
        held += size
        if held > most:
            path.unlink(missing_ok=True)


def _short(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
