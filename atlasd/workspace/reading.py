"""Reading a file of a root safely: regular files inside the root, text only, secrets masked."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from atlasd.workspace.never import MAX_BYTES, never_content
from atlasd.workspace.secrets import mask, mask_private_keys
from atlasd.workspace.slices import slices

_STEP = 1 << 14
_BESIDE = 512
"""Characters on both sides of a step that are looked at with it, so that a secret which is cut
through is seen whole from one side or the other."""


def read_bytes(root: Path, path: str) -> bytes | None:
    """The content of a file, or None: gone, unreadable, not a regular file, too large, or led out
    of the root by a symlink. Never blocks on a pipe."""
    try:
        descriptor = os.open(
            root / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except (OSError, ValueError):
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return None
        # A folder on the way may be a symlink by now; what was opened must still lie inside.
        if not _real_path(descriptor, root / path).startswith(f"{root}{os.sep}"):
            return None
        return _all_of(descriptor)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _real_path(descriptor: int, path: Path) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")
    except OSError:
        return os.path.realpath(path)


def _all_of(descriptor: int) -> bytes | None:
    parts: list[bytes] = []
    size = 0
    while block := os.read(descriptor, 1 << 18):
        parts.append(block)
        size += len(block)
        if size > MAX_BYTES:
            return None
    return b"".join(parts)


def decoded(data: bytes) -> str | None:
    """File content as text, secrets not masked yet; None if it is never read."""
    if never_content(data) is not None:
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def masked(text: str, pause: Callable[[], None] = lambda: None) -> str:
    """The text with secrets masked, in steps with a ``pause`` between them."""
    if len(text) <= _STEP:
        return mask(text)
    # These are longer than anything that is looked at beside a step.
    text = mask_private_keys(text)
    parts: list[str] = []
    at = 0
    for piece in slices(text, _STEP, 2 * _STEP):
        pause()
        begin, end = max(0, at - _BESIDE), at + len(piece)
        parts.append(mask(text[begin : end + _BESIDE])[at - begin : end - begin])
        at = end
    return "".join(parts)


def readable_text(data: bytes) -> str | None:
    """File content as text with secrets masked, or None if it is never read."""
    text = decoded(data)
    return None if text is None else mask(text)
