"""The rows that go in and out of the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from atlasd.workspace.filerow import FileRow

__all__ = ["Accepted", "Fate", "FileRow", "LearnedRow", "StoredCompletion"]

Fate = Literal["shown", "accepted", "accepted_word", "accepted_line", "dismissed", "superseded"]


@dataclass(frozen=True)
class StoredCompletion:
    """A suggestion that was given to a client. ``created`` is seconds since the epoch (0: now)."""

    id: str
    text: str
    repository: str | None = None
    path: str | None = None
    language: str | None = None
    client: str = ""
    model: str = ""
    source: str = "model"
    trusted: bool = True
    output_tokens: int = 0
    drafted: int = 0
    accepted_drafts: int = 0
    total_ms: float = 0.0
    decode_ms: float = 0.0
    created: float = 0.0


@dataclass(frozen=True)
class Accepted:
    """Text that the developer took into a file."""

    id: str
    text: str
    repository: str | None
    path: str | None
    language: str | None
    at: float


@dataclass(frozen=True)
class LearnedRow:
    """State the engine learned, opaque here. ``model`` names model and tokenizer."""

    kind: str
    repository: str | None
    model: str
    payload: bytes
