"""What is recorded of an indexed file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FileRow:
    """A file as it was when indexed. ``generation`` is counted by the store."""

    path: str
    language: str | None
    size: int
    mtime_ns: int
    hash: bytes
    tokens: int
    key: str
    """Fingerprint of the tokenizer that counted the tokens."""
    generation: int = 0
