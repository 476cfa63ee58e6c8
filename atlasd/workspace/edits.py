"""What was edited lately: the open buffers' text, and the region around each last change."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass

BUFFERS = 64
BYTES = 8 << 20
"""Text of open buffers kept in all; the least recently edited go first."""
CONTEXT_LINES = 3
REGION_LINES = 40
NEAR_LINES = 10


@dataclass(frozen=True)
class Edit:
    """A region that was changed, in an open buffer or on disk, with a few lines around it."""

    path: str
    text: str
    at: float
    """Seconds since the epoch."""
    line: int = 0
    """First line of ``text`` in the file, counted from 0."""


@dataclass(frozen=True)
class _Buffer:
    text: str
    at: float
    first: int
    last: int
    """Lines [first, last) were changed lately; empty when nothing is known to have changed."""


class Edits:
    """Of one repository. Not thread-safe: the owner locks."""

    def __init__(self) -> None:
        self._buffers: OrderedDict[str, _Buffer] = OrderedDict()
        self._bytes = 0

    def note(self, path: str, text: str, before: str | None, at: float | None = None) -> None:
        """``path`` is now ``text``; ``before`` is what it was if no buffer of it is known."""
        known = self._buffers.get(path)
        old = known.text if known else before
        if known and known.text == text:
            return
        first, last = changed_lines(old, text) if old is not None else (0, 0)
        if known and known.last > known.first:
            shift = text.count("\n") - known.text.count("\n")
            first, last = _joined(known, first, last, shift)
        self._set(path, _Buffer(text, time.time() if at is None else at, first, last))

    def note_lines(self, path: str, text: str, lines: tuple[int, int], at: float) -> None:
        """A file that was changed on disk in ``lines``."""
        known = self._buffers.get(path)
        if known is None:
            self._set(path, _Buffer(text, at, *lines))
        else:
            # What the editor had in its buffer is what is compared: saving it changes nothing.
            self.note(path, text, None, at)

    def text(self, path: str, newer_than: float) -> str | None:
        """A buffer's text, if it was noted after a moment."""
        known = self._buffers.get(path)
        return known.text if known and known.at >= newer_than else None

    def forget(self, path: str) -> None:
        known = self._buffers.pop(path, None)
        self._bytes -= len(known.text) if known else 0

    def recent(self, limit: int) -> list[Edit]:
        """The regions changed last, newest first."""
        found: list[Edit] = []
        for path in reversed(self._buffers):
            known = self._buffers[path]
            if known.last > known.first and len(found) < limit:
                found.append(_region(path, known))
        return found

    def _set(self, path: str, buffer: _Buffer) -> None:
        self.forget(path)
        self._buffers[path] = buffer
        self._bytes += len(buffer.text)
        while len(self._buffers) > 1 and (len(self._buffers) > BUFFERS or self._bytes > BYTES):
            self.forget(next(iter(self._buffers)))


def changed_lines(old: str, new: str) -> tuple[int, int]:
    """The lines [first, last) of ``new`` between what both texts begin and end with."""
    if old == new:
        return 0, 0
    start = _common(old, new)
    room = min(len(old), len(new)) - start
    end = len(new) - _common(old[::-1][:room], new[::-1][:room])
    first = new.count("\n", 0, start)
    return first, first + new.count("\n", start, end) + 1


def _common(a: str, b: str) -> int:
    """Length of the common prefix, by halving: comparing slices is much quicker than characters."""
    low, high = 0, min(len(a), len(b))
    while low < high:
        middle = (low + high + 1) // 2
        if a[low:middle] == b[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


def _joined(known: _Buffer, first: int, last: int, shift: int) -> tuple[int, int]:
    """The former region moved by what was inserted above it, joined with a near new one."""
    old_first, old_last = known.first, known.last
    if first <= old_first:
        old_first += shift
    if first < old_last:
        old_last += shift
    if first - NEAR_LINES <= old_last and old_first <= last + NEAR_LINES:
        return max(0, min(first, old_first)), max(last, old_last)
    return first, last


def _region(path: str, buffer: _Buffer) -> Edit:
    lines = buffer.text.split("\n")
    last = min(len(lines), buffer.last + CONTEXT_LINES)
    first = max(0, buffer.first - CONTEXT_LINES, last - REGION_LINES)
    return Edit(path, "\n".join(lines[first:last]), buffer.at, first)
