"""What is kept of a file's text: hashes of its identifiers, definitions and lines."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from atlasd.workspace.definitions import (
    Hashes,
    defined_names,
    distinct,
    hashes_of,
    identifiers,
)
from atlasd.workspace.slices import slices

_STEP = 1 << 14
_CHECKED = 1 << 16
"""Characters whose lines are checked in one step."""


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
    hashes: list[Hashes] = []
    defined: set[str] = set()
    for piece in slices(text, _STEP, 2 * _STEP):
        pause()
        new = identifiers(piece) - names
        names |= new
        hashes.append(hashes_of(new))
        defined |= {name for name, _ in defined_names(piece, language)}
    pause()
    of_names = distinct(np.concatenate(hashes))
    return Analysis(of_names, hashes_of(defined), line_checksums(text, pause))


def line_checksums(text: str, pause: Callable[[], None] = lambda: None) -> Hashes:
    parts: list[Hashes] = []
    start = 0
    while start <= len(text):
        end = text.find("\n", start + _CHECKED)
        end = len(text) if end < 0 else end
        lines = text[start:end].encode("utf-8", "replace").split(b"\n")
        parts.append(np.fromiter(map(zlib.crc32, lines), dtype=np.uint32, count=len(lines)))
        start = end + 1
        pause()
    return np.concatenate(parts)


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
