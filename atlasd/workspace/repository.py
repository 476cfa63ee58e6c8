"""One repository as the daemon knows it: its files, their text, and where to look for context."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Definition:
    """Where a name is defined. ``path`` is relative to the repository, ``line`` counts from 0."""

    name: str
    path: str
    line: int
    text: str
    """The definition's first lines: signature, documentation, the start of its body."""


@dataclass(frozen=True)
class Edit:
    """A file as it was when it last changed, in an open buffer or on disk."""

    path: str
    text: str
    at: float
    """Seconds since the epoch."""


class Repository:
    """Paths are relative to ``root`` with ``/`` between their parts. Text is never that of an
    ignored file, and secrets in it are masked. Safe to call from the event loop; the calls that
    read files (``text``, ``defining``, ``similar``) take well under a millisecond per file."""

    root: Path
    name: str
    """What the model is told the repository is called."""
    trusted: bool
    state: str
    """``opened``, ``scanning``, ``indexing``, ``watching``, ``paused`` or ``closed``."""
    tokens: int
    """Tokens indexed."""
    files: list[str]

    def text(self, path: str) -> str | None:
        """The open buffer's text if there is one, else the file's; None if it must not be read."""
        ...

    def defining(self, names: Iterable[str], limit: int = 8) -> list[Definition]:
        """Definitions of ``names``, in the order of the names."""
        ...

    def recent(self, limit: int = 8) -> list[Edit]:
        """What was edited last, newest first."""
        ...

    def similar(
        self, identifiers: Iterable[str], exclude: Iterable[str] = (), limit: int = 4
    ) -> list[tuple[str, float]]:
        """Files that share rare identifiers, as (path, score in 0..1), best first."""
        ...
