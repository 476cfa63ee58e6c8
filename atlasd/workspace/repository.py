"""One repository as the daemon knows it: its files, their text, and where to look for context."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from atlasd.workspace.analysis import Analysis, changed_lines
from atlasd.workspace.definitions import Definition, Hashes, defined_names, definition, hashes_of
from atlasd.workspace.edits import Edit, Edits
from atlasd.workspace.ignore import IgnoreRules
from atlasd.workspace.kept import Kept
from atlasd.workspace.language import language_of
from atlasd.workspace.postings import Postings
from atlasd.workspace.reading import read_bytes, readable_text
from atlasd.workspace.scan import Found, allowed, find, withheld

__all__ = ["Definition", "Edit", "Entry", "Repository"]

_TEXTS_BYTES = 4 << 20
_DEFINED_NAMES = 20_000
"""Names whose places in their files are remembered, of the files that were asked about last."""
_FILES_PER_NAME = 3
_TIES = 64
"""Files of the same score that are looked at, so that their order is that of their paths."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An indexed file. ``number`` is new for every version of it."""

    number: int
    found: Found
    hash: bytes
    tokens: int
    key: str
    """Fingerprint of the tokenizer that made the tokens; empty: not tokenised yet."""
    lines: Hashes

    def unchanged(self, found: Found) -> bool:
        """Whether size and time are those of the version that was indexed."""
        return (self.found.size, self.found.mtime_ns) == (found.size, found.mtime_ns)


class Repository:
    """Paths are relative to ``root`` with ``/`` between their parts. Text is never that of an
    ignored file, and secrets in it are masked. May be asked on any thread; changed only by the
    indexing thread."""

    def __init__(self, root: Path, trusted: bool) -> None:
        self.root = root
        self.name = root.name
        self.trusted = trusted
        self.state = "opened"
        """``opened``, ``scanning``, ``indexing``, ``watching``, ``paused`` or ``closed``."""
        self.notice = ""
        """Something the user should know, with what to do about it."""
        self.rules = IgnoreRules(root)
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._paths: dict[int, str] = {}
        self._folders: Counter[str] = Counter()
        self._next = 0
        self._identifiers = Postings()
        self._definitions = Postings()
        self._edits = Edits()
        self._texts: Kept[str] = Kept(_TEXTS_BYTES)
        self._defined: Kept[dict[str, list[int]]] = Kept(_DEFINED_NAMES)
        self._listed: list[str] | None = None
        self.tokens = 0
        """Tokens indexed."""

    # what is asked of it

    @property
    def files(self) -> list[str]:
        """Paths of all indexed files, sorted. Do not change the list."""
        with self._lock:
            if self._listed is None:
                self._listed = sorted(self._entries)
            return self._listed

    def __contains__(self, path: str) -> bool:
        return path in self._entries

    def withholds(self, path: str) -> bool:
        """Whether a file is ignored or never read, so that nothing of it may be kept even while
        it is edited."""
        return withheld(self.root, self.rules, path)

    def text(self, path: str) -> str | None:
        """The open buffer's text if it is newer than the file, else the file's; None if there is
        none or it must not be read."""
        if not self.trusted or not allowed(self.root, self.rules, path):
            return None
        try:
            status = os.lstat(self.root / path)
            version = (status.st_mtime_ns, status.st_size)
        except OSError:
            version = (0, 0)
        with self._lock:
            buffer = self._edits.text(path, version[0] / 1e9)
            if buffer is not None:
                return buffer
            if (known := self._texts.get(path, version)) is not None:
                return known
        data = read_bytes(self.root, path)
        text = None if data is None else readable_text(data)
        if text is not None:
            with self._lock:
                self._texts.put(path, version, text, len(text))
        return text

    def defining(self, names: Iterable[str], limit: int = 8) -> list[Definition]:
        """Definitions of ``names``, in the order of the names."""
        found: list[Definition] = []
        for name in dict.fromkeys(names):
            with self._lock:
                numbers = self._definitions.files(int(hashes_of([name])[0]))
                paths = [p for n in numbers if (p := self._paths.get(n))][:_FILES_PER_NAME]
            for path in paths:
                text = self.text(path)
                if text is not None:
                    places = self._places(path, text).get(name, ())
                    found.extend(definition(text, path, name, start) for start in places)
            if len(found) >= limit:
                break
        return found[:limit]

    def recent(self, limit: int = 8) -> list[Edit]:
        """The regions edited last, newest first."""
        with self._lock:
            return self._edits.recent(limit)

    def similar(
        self, identifiers: Iterable[str], exclude: Iterable[str] = (), limit: int = 4
    ) -> list[tuple[str, float]]:
        """Files that share rare identifiers, as (path, score in 0..1), best first."""
        left_out = set(exclude)
        most = limit + len(left_out) + _TIES
        best = self._identifiers.scores(hashes_of(identifiers), most)
        with self._lock:
            scored = [
                (self._paths[number], score)
                for number, score in best
                if number in self._paths and self._paths[number] not in left_out
            ]
        scored.sort(key=lambda item: (-item[1], item[0]))
        return scored[:limit]

    # what the indexing thread tells it

    def entry(self, path: str) -> Entry | None:
        return self._entries.get(path)

    def put(
        self,
        found: Found,
        hash: bytes,
        analysis: Analysis,
        tokens: int = 0,
        key: str = "",
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        """A file is new or has changed. ``pause`` is called where that takes long."""
        number, self._next = self._next, self._next + 1
        # Not under the lock, as merging may take a while; a number without a path is passed over.
        self._identifiers.put(number, analysis.identifiers, pause)
        self._definitions.put(number, analysis.definitions, pause)
        with self._lock:
            self._forget_number(found.path)
            if found.path not in self._entries:
                self._listed = None
                self._folders.update(folders_above(found.path))
            self._entries[found.path] = Entry(number, found, hash, tokens, key, analysis.lines)
            self._paths[number] = found.path
            self.tokens += tokens

    def put_tokens(self, found: Found, tokens: int, key: str) -> None:
        """A file that is otherwise the same was tokenised, or only its time changed."""
        with self._lock:
            old = self._entries[found.path]
            self.tokens += tokens - old.tokens
            new = Entry(old.number, found, old.hash, tokens, key, old.lines)
            self._entries[found.path] = new

    def drop(self, path: str) -> bool:
        """A file is gone or must no longer be read. False if it was not known."""
        with self._lock:
            self._edits.forget(path)
            self._texts.drop(path)
            self._defined.drop(path)
            if path not in self._entries:
                return False
            self._forget_number(path)
            del self._entries[path]
            self._folders.subtract(folders_above(path))
            self._listed = None
            return True

    def below(self, folder: str) -> list[str]:
        """Indexed files below a folder ("" is the root)."""
        with self._lock:
            if not folder:
                return list(self._entries)
            if self._folders[folder] <= 0:
                return []
            return [path for path in self._entries if path.startswith(f"{folder}/")]

    def note_buffer(self, path: str, text: str) -> None:
        """An open buffer is now ``text`` (secrets masked already)."""
        with self._lock:
            before = self.text(path)
            self._edits.note(path, text, before)

    def close_buffer(self, path: str) -> bool:
        """A buffer is not open any more; True if it held what was never saved. What was saved of
        it stays a recent edit."""
        with self._lock:
            buffer = self._edits.text(path, 0.0)
        if buffer is None:
            return False
        data = read_bytes(self.root, path)
        if data is not None and readable_text(data) == buffer:
            return False
        with self._lock:
            self._edits.forget(path)
        return True

    def note_saved(self, path: str, text: str, before: Hashes, after: Hashes, at: float) -> None:
        """A single file was changed on disk, not by a branch switch."""
        with self._lock:
            self._edits.note_lines(path, text, changed_lines(before, after), at)

    def _forget_number(self, path: str) -> None:
        if old := self._entries.get(path):
            self._identifiers.drop(old.number)
            self._definitions.drop(old.number)
            del self._paths[old.number]
            self.tokens -= old.tokens

    def _places(self, path: str, text: str) -> dict[str, list[int]]:
        """Where a text defines which names: looking through it again and again is too slow for a
        completion's context."""
        version = (hash(text), len(text))
        with self._lock:
            known = self._defined.get(path, version)
        if known is None:
            known = {}
            for name, start in defined_names(text, language_of(path)):
                known.setdefault(name, []).append(start)
            with self._lock:
                self._defined.put(path, version, known, 1 + len(known))
        return known

    def find(self, path: str) -> Found | None:
        """The file as it is on disk, if it may be read."""
        return find(self.root, self.rules, path)


def folders_above(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
