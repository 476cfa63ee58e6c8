"""What is kept of a file's text: hashes of its identifiers, definitions and lines."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from atlasd.workspace.definitions import Hashes, defined_names, hashes_of, identifiers
from atlasd.workspace.slices import slices

_STEP = 1 << 15


@dataclass(frozen=True)
class Analysis:
    """Small enough to keep for every file of a large repository."""

    identifiers: Hashes
    definitions: Hashes
    lines: Hashes
    """Checksum of each line, in order: enough to tell which lines a later version changed."""


def analyse(text: str, language: str | None, pause: Callable[[], None] = lambda: None) -> Analysis:
    """In steps with a ``pause`` between them, for a call of the expression engine keeps all other
    threads waiting."""
    names: set[str] = set()
    defined: set[str] = set()
    for piece in slices(text, _STEP):
        pause()
        names |= identifiers(piece)
        defined |= {name for name, _ in defined_names(piece, language)}
    return Analysis(hashes_of(names), hashes_of(defined), line_checksums(text))


def line_checksums(text: str) -> Hashes:
    lines = text.encode("utf-8", "replace").split(b"\n")
    return np.fromiter(map(zlib.crc32, lines), dtype=np.uint32, count=len(lines))


def changed_lines(before: Hashes, after: Hashes) -> tuple[int, int]:
    """The lines [first, last) of ``after`` between what both versions begin and end with."""
    room = min(len(before), len(after))
    same = before[:room] == after[:room]
    first = room if same.all() else int(np.argmin(same))
    if first == len(before) == len(after):
        return 0, 0
    room -= first
    same = before[::-1][:room] == after[::-1][:room]
    tail = room if same.all() else int(np.argmin(same))
    # Lines that were only removed leave an empty range; the line that follows stands for it.
    return first, max(len(after) - tail, min(first + 1, len(after)))


def content_hash(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()
