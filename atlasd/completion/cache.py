"""The type-through cache: suggestions found again by the text around the cursor.

Typing along a suggestion, or going back, costs no model call, whichever client asks: an entry is
known by the document's text before and after the cursor, and by what was asked for, and by
nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Generic, TypeVar

from atlasd.completion.request import CompletionRequest

Origin = TypeVar("Origin")
_Key = tuple[Hashable, bytes, bytes]

MOST_BYTES = 8 << 20
ENTRY_BYTES = 4000
"""What an entry costs besides its text: keys, digests, its origin, the containers' share."""
AUTO_CLOSED = 3
"""Characters that an editor may have put right of the cursor while the user typed along."""

_OPENER = {")": "(", "]": "[", "}": "{", ">": "<"}
_CLOSED = frozenset([*_OPENER, '"', "'", "`"])


def wanted(request: CompletionRequest) -> Hashable:
    """What was asked for besides the place: suggestions are only found again for the same. Of
    greedy decoding, what chooses among likely tokens is no part: clients fill it in differently."""
    sampling = request.sampling
    chance = (
        *(sampling.temperature, sampling.seed, sampling.choice),
        *(sampling.top_p, sampling.top_k, sampling.min_p),
    )
    return (
        chance if sampling.temperature else (),
        *(sampling.repetition_penalty, sampling.presence_penalty, sampling.frequency_penalty),
        tuple(sorted(sampling.logit_bias.items())),
        *(request.stop, request.single_line, request.indent, request.drafting),
    )


@dataclass(frozen=True)
class Entry(Generic[Origin]):
    """A suggestion for one place. An empty ``text`` means that there was nothing to suggest."""

    prefix_length: int
    prefix_digest: bytes
    suffix_digest: bytes
    text: str
    replace_right: int
    origin: Origin


@dataclass(frozen=True)
class Hit(Generic[Origin]):
    """What is left of a suggestion when ``typed`` characters of it have been typed, and how many
    characters the editor has closed right of the cursor meanwhile."""

    entry: Entry[Origin]
    typed: int
    closed: int = 0

    @property
    def text(self) -> str:
        return self.entry.text[self.typed :]


def digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class TypeThrough(Generic[Origin]):
    """Least recently used entries go first, once ``most_bytes`` are held. ``origin`` is whatever
    the owner wants to know again of a suggestion."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self.bytes = 0
        self._most_bytes = most_bytes
        self._entries: OrderedDict[_Key, Entry[Origin]] = OrderedDict()
        self._by_suffix: dict[tuple[Hashable, bytes], list[_Key]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def put(
        self,
        wanted: Hashable,
        prefix: str,
        suffix: str,
        text: str,
        replace_right: int,
        origin: Origin,
    ) -> None:
        """Remember a suggestion, in place of an earlier one for the same place."""
        entry = Entry(len(prefix), digest(prefix), digest(suffix), text, replace_right, origin)
        key = (wanted, entry.suffix_digest, entry.prefix_digest)
        if key in self._entries:
            self._remove(key)
        self._entries[key] = entry
        self._by_suffix.setdefault(key[:2], []).append(key)
        self.bytes += _size(entry)
        while self.bytes > self._most_bytes and self._entries:
            self._remove(next(iter(self._entries)))

    def find(self, wanted: Hashable, prefix: str, suffix: str) -> Hit[Origin] | None:
        """The newest suggestion that the text before the cursor runs along, with something left
        to suggest; or the empty one that was made for exactly this place."""
        for closed in range(_closed_right(suffix) + 1):
            found = self._find(wanted, prefix, suffix, closed)
            if found is not None:
                return found
        return None

    def clear(self) -> None:
        self._entries.clear()
        self._by_suffix.clear()
        self.bytes = 0

    def _find(self, wanted: Hashable, prefix: str, suffix: str, closed: int) -> Hit[Origin] | None:
        for key in reversed(self._by_suffix.get((wanted, digest(suffix[closed:])), [])):
            entry = self._entries[key]
            typed = len(prefix) - entry.prefix_length
            exact = typed == 0 and not entry.text and not closed
            if not (exact or 0 <= typed < len(entry.text)):
                continue
            if not entry.text.startswith(prefix[entry.prefix_length :]):
                continue
            if not _opens(entry.text[:typed], suffix[:closed]):
                continue
            if entry.text and not entry.text[typed:].strip():
                continue
            if digest(prefix[: entry.prefix_length]) == entry.prefix_digest:
                self._entries.move_to_end(key)
                return Hit(entry, typed, closed)
        return None

    def _remove(self, key: _Key) -> None:
        self.bytes -= _size(self._entries.pop(key))
        keys = self._by_suffix[key[:2]]
        keys.remove(key)
        if not keys:
            del self._by_suffix[key[:2]]


def _size(entry: Entry[Origin]) -> int:
    return ENTRY_BYTES + 4 * len(entry.text)


def _opens(typed: str, closed: str) -> bool:
    """Whether what was typed made the editor close these."""
    return all(_OPENER.get(each, each) in typed for each in closed)


def _closed_right(suffix: str) -> int:
    count = 0
    while count < min(AUTO_CLOSED, len(suffix)) and suffix[count] in _CLOSED:
        count += 1
    return count
