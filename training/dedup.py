"""Near-duplicate removal by line shingles: against files seen before and held-out projects."""

import zlib
from collections import Counter, defaultdict

LINES = 3  # lines per shingle
SKETCH = 64  # smallest hashes kept per file
_MIX = 0x9E3779B1  # odd: a bijection on 32 bits, so that "smallest" is unrelated to the text


def shingles(text: str) -> set[int]:
    """Hashes of every run of LINES non-blank lines, whitespace at the ends ignored."""
    lines = [line for raw in text.split("\n") if (line := raw.strip())]
    runs = range(max(1, len(lines) - LINES + 1))
    return {zlib.crc32("\n".join(lines[i : i + LINES]).encode()) * _MIX & 0xFFFFFFFF for i in runs}


class Deduplicator:
    """`is_new(text)` is True once per family of similar texts.

    Two files are similar when half of their bottom-k sketches agree (about half of their shingles).
    A file also leaks when the share `leak` of its shingles occurs anywhere in the held-out text.
    """

    def __init__(self, similarity: float = 0.5, leak: float = 0.25) -> None:
        self.similarity, self.leak = similarity, leak
        self._held_out: set[int] = set()
        self._owners: defaultdict[int, list[int]] = defaultdict(
            list
        )  # hash -> files sketched with it
        self._files = 0

    def hold_out(self, text: str) -> None:
        self._held_out |= shingles(text)

    def leaks(self, text: str) -> bool:
        own = shingles(text)
        return len(own & self._held_out) >= self.leak * len(own)

    def is_new(self, text: str) -> bool:
        sketch = sorted(shingles(text))[:SKETCH]
        shared = Counter(owner for value in sketch for owner in self._owners.get(value, ()))
        if shared and shared.most_common(1)[0][1] >= self.similarity * len(sketch):
            return False
        for value in sketch:
            if len(self._owners[value]) < 50:  # a shingle in fifty files is boilerplate
                self._owners[value].append(self._files)
        self._files += 1
        return True
