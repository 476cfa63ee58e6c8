"""The type-through cache: suggestions found again by the text around the cursor.

Typing along a suggestion, or going back, costs no model call, whichever client asks: an entry is
known by the document's text before and after the cursor, and by what was asked for, and by
nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

MOST_BYTES = 8 << 20
ENTRY_BYTES = 600
"""What an entry costs besides its text: keys, digests and the containers' share."""
AUTO_CLOSED = 3
"""Characters that an editor may have put right of the cursor while the user typed along."""

_CLOSED = frozenset(")]}\"'`>")


@dataclass(frozen=True)
class Entry:
    """A suggestion for one place. An empty ``text`` means that there was nothing to suggest."""

    prefix_length: int
    prefix_digest: bytes
    suffix_digest: bytes
    text: str
    replace_right: int
    id: str


@dataclass(frozen=True)
class Hit:
    """What is left of a suggestion when ``typed`` characters of it have been typed, and how many
    characters the editor has closed right of the cursor meanwhile."""

    entry: Entry
    typed: int
    closed: int = 0

    @property
    def text(self) -> str:
        return self.entry.text[self.typed :]


def digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class TypeThrough:
    """Least recently used entries go first, once ``most_bytes`` are held.

    ``wanted`` is any hashable description of what was asked for besides the place: suggestions
    are only found again for the same.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.bytes = 0
        self._most_bytes = most_bytes
        self._entries: OrderedDict[tuple[object, bytes, bytes], Entry] = OrderedDict()
        self._by_suffix: dict[tuple[object, bytes], list[tuple[object, bytes, bytes]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def put(
        self, wanted: object, prefix: str, suffix: str, text: str, replace_right: int, id: str
    ) -> None:
        """Remember a suggestion, in place of an earlier one for the same place."""
        entry = Entry(len(prefix), digest(prefix), digest(suffix), text, replace_right, id)
        key = (wanted, entry.suffix_digest, entry.prefix_digest)
        if key in self._entries:
            self._remove(key)
        self._entries[key] = entry
        self._by_suffix.setdefault(key[:2], []).append(key)
        self.bytes += _size(entry)
        while self.bytes > self._most_bytes and self._entries:
            self._remove(next(iter(self._entries)))

    def find(self, wanted: object, prefix: str, suffix: str) -> Hit | None:
        """The newest suggestion that the text before the cursor runs along, with something left
        to suggest; or the empty one that was made for exactly this place."""
        for closed in range(_closed_right(suffix) + 1):
            found = self._find(wanted, prefix, digest(suffix[closed:]), closed)
            if found is not None:
                return found
        return None

    def clear(self) -> None:
        self._entries.clear()
        self._by_suffix.clear()
        self.bytes = 0

    def _find(self, wanted: object, prefix: str, suffix: bytes, closed: int) -> Hit | None:
        for key in reversed(self._by_suffix.get((wanted, suffix), [])):
            entry = self._entries[key]
            typed = len(prefix) - entry.prefix_length
            exact = typed == 0 and not entry.text and not closed
            if not (exact or 0 <= typed < len(entry.text)):
                continue
            if not entry.text.startswith(prefix[entry.prefix_length :]):
                continue
            if closed and typed == 0:
                continue
            if entry.text and not entry.text[typed:].strip():
                continue
            if digest(prefix[: entry.prefix_length]) == entry.prefix_digest:
                self._entries.move_to_end(key)
                return Hit(entry, typed, closed)
        return None

    def _remove(self, key: tuple[object, bytes, bytes]) -> None:
        self.bytes -= _size(self._entries.pop(key))
        keys = self._by_suffix[key[:2]]
        keys.remove(key)
        if not keys:
            del self._by_suffix[key[:2]]


def _size(entry: Entry) -> int:
    return ENTRY_BYTES + 4 * len(entry.text)


def _closed_right(suffix: str) -> int:
    count = 0
    while count < min(AUTO_CLOSED, len(suffix)) and suffix[count] in _CLOSED:
        count += 1
    return count
