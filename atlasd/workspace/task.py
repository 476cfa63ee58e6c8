"""What there is to do for one repository: what was noticed, when it is due, and the work at hand.

Watching, the event loop and the indexing thread meet here; everything below ``lock`` is shared.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from atlasd.workspace.repository import Repository
from atlasd.workspace.scan import Found
from atlasd.workspace.tokencache import TokenCache
from atlasd.workspace.watch import Watch, start_watch

QUIET_S = 0.05
"""Changes are looked at once nothing more has changed for this long (a save is several events)."""
MOST_S = 0.5
"""… or at the latest after this long (a branch switch goes on and on)."""
EDIT_QUIET_S = 0.3
"""An open buffer becomes a new segment when typing rests for this long."""
POLL_S = 5.0
"""How often a root is looked through where it cannot be watched, at the least."""


@dataclass(frozen=True, slots=True)
class Gone:
    """A file that was indexed and is no more to be read."""

    path: str


@dataclass(frozen=True, slots=True)
class Look:
    """A file to index. ``content``: compare its content whatever its time says. ``alone``: it was
    changed by itself, so it is an edit and not a branch switch. ``again``: send it anyway."""

    found: Found
    content: bool = False
    alone: bool = False
    again: bool = False


Work = Iterator[Look | Gone | None]
"""Steps of work; None is a step without a result, after which others may come first."""


@dataclass
class Edited:
    text: str | None
    """None: closed."""
    at: float
    noted: bool = False


@dataclass
class Counts:
    """Progress of the scan at hand."""

    files: int = 0
    total: int = 0
    tokens: int = 0
    path: str = ""
    started: float = field(default_factory=time.monotonic)


class Task:
    """One trusted repository in the hands of the indexing thread."""

    def __init__(self, repository: Repository, condition: threading.Condition) -> None:
        self.repository = repository
        self.counts = Counts()
        self.work: list[Work] = []
        """Done from the end: what was noticed last goes first."""
        self.cache: TokenCache | None = None
        self.keep = True
        """False after a purge: nothing is written for this repository any more."""
        self.idle = asyncio.Event()
        """Set, on the event loop, when nothing is left to do."""
        self.unwatched = False
        """Not every change is noticed: the root is looked through from time to time."""
        self.missing = False
        """The root is gone; it may come back."""
        self.poll_at = 0.0
        self.closed = False
        self.watch: Watch | None = None
        self._condition = condition
        self._rescan = True
        self._again = False
        self._dirty: set[str] = set()
        self._dirty_since = 0.0
        self._dirty_last = 0.0
        self._edits: dict[str, Edited] = {}

    def close_cache(self) -> None:
        if self.cache:
            self.cache.close()
            self.cache = None

    # noticed on any thread

    def start_watching(self) -> None:
        self.watch = start_watch(self.repository.root, self.changed, self.lost)

    def changed(self, path: str) -> None:
        with self._condition:
            now = time.monotonic()
            if not self._dirty:
                self._dirty_since = now
                self._condition.notify_all()
            self._dirty_last = now
            self._dirty.add(path)

    def lost(self, notice: str) -> None:
        with self._condition:
            self._rescan = True
            if notice:
                self.repository.notice = notice
                self.unwatched = True
                self.poll_at = time.monotonic() + POLL_S
            self._condition.notify_all()

    def rescan(self, again: bool = False) -> None:
        """Look through the whole root; ``again``: send all of it, changed or not."""
        with self._condition:
            self._rescan = True
            self._again = self._again or again
            self._condition.notify_all()

    def edited(self, path: str, text: str | None) -> None:
        with self._condition:
            self._edits[path] = Edited(text, time.monotonic())
            self._condition.notify_all()

    # asked by the indexing thread, which holds the condition

    def due_in(self, now: float) -> float | None:
        """Seconds until there is something to do (0: now), None while nothing is known."""
        if self.work or self._rescan or any(not edit.noted for edit in self._edits.values()):
            return 0.0
        due = [edit.at + EDIT_QUIET_S for edit in self._edits.values()]
        if self._dirty:
            due.append(min(self._dirty_last + QUIET_S, self._dirty_since + MOST_S))
        if self.poll_at:
            due.append(self.poll_at)
        return max(0.0, min(due) - now) if due else None

    @property
    def quiet(self) -> bool:
        """Nothing to do now or soon, looking again from time to time left aside."""
        return not (self.work or self._rescan or self._edits or self._dirty)

    def take_unnoted(self) -> list[tuple[str, str | None]]:
        """Buffers that changed, or were closed, since they were last noted."""
        found = [(path, edit.text) for path, edit in self._edits.items() if not edit.noted]
        for path, text in found:
            if text is None:
                del self._edits[path]
            else:
                self._edits[path].noted = True
        return found

    def take_rested(self, now: float) -> list[tuple[str, str]]:
        """Buffers in which typing rests."""
        found = [
            (path, edit.text)
            for path, edit in self._edits.items()
            if edit.text is not None and edit.at + EDIT_QUIET_S <= now
        ]
        for path, _ in found:
            del self._edits[path]
        return found

    def take_dirty(self, now: float) -> set[str]:
        if not self._dirty or now < min(self._dirty_last + QUIET_S, self._dirty_since + MOST_S):
            return set()
        taken, self._dirty = self._dirty, set()
        return taken

    def take_rescan(self, now: float) -> tuple[bool, bool]:
        """(look through all, send all again)."""
        if self.poll_at and now >= self.poll_at:
            self._rescan = True
        taken = (self._rescan, self._again)
        self._rescan = self._again = False
        return taken
