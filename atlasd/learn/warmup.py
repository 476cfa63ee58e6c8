"""What the target should read while nothing is asked of it: texts it has not generated.

Accepted completions first, then the files edited most and last. A text that was changed is read
again only from where it differs, and only so much is read for every change: a laptop on battery
must not be kept busy by a repository.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atlasd.draft.drafter import Int32
from atlasd.draft.segments import common_prefix

TEXTS, TEXT_TOKENS = 128, 4096
"""Texts of a repository that may wait, and tokens of each."""

BLOCK = 512
OVERLAP = 64
"""Tokens read at a time, of which so many only give context."""

BUDGET = 48 * 1024
"""Tokens read for a repository that was not known before."""

PER_CHANGE = 1024
"""Tokens read more for each change of a text."""


@dataclass
class _Text:
    tokens: Int32
    accepted: bool
    edits: int
    changed: tuple[float, int]
    """Seconds since the epoch, and of those that are equal the order they came in."""
    done: int = 0
    """Tokens that were read already."""

    @property
    def order(self) -> tuple[bool, int, tuple[float, int]]:
        return self.accepted, min(self.edits, 8), self.changed


@dataclass(frozen=True)
class Block:
    """Tokens to be read; rows from ``first`` on are new."""

    tokens: Int32
    first: int


class WarmUp:
    """The texts of one repository that wait to be read."""

    def __init__(self) -> None:
        self.left = BUDGET
        self._texts: dict[str, _Text] = {}
        self._wishes = 0

    def wish(self, name: str, kind: str, tokens: Int32, modified: float = 0.0) -> None:
        """A text came, or its new version; ``modified`` is when, in seconds since the epoch."""
        self._wishes += 1
        tokens = np.array(tokens[:TEXT_TOKENS], np.int32)
        known = self._texts.get(name)
        changed = modified, self._wishes
        if known is None:
            self._texts[name] = _Text(tokens, kind == "accepted", 0, changed)
            if kind == "accepted":
                self.left = min(self.left + len(tokens), BUDGET)
            if len(self._texts) > TEXTS:
                del self._texts[min(self._texts, key=lambda key: self._texts[key].order)]
            return
        same = common_prefix(known.tokens, tokens)
        if same == len(known.tokens) == len(tokens):
            return
        known.tokens, known.done = tokens, min(known.done, same)
        known.edits, known.changed = known.edits + 1, changed
        self.left = min(self.left + PER_CHANGE, BUDGET)

    def drop(self, name: str) -> None:
        """Do not read this text."""
        self._texts.pop(name, None)

    def next(self) -> Block | None:
        """What to read now; counts as read."""
        if self.left <= 0:
            return None
        waiting = [text for text in self._texts.values() if len(text.tokens) - text.done > 2]
        if not waiting:
            return None
        text = max(waiting, key=lambda one: one.order)
        begin = max(0, text.done - OVERLAP)
        end = min(len(text.tokens), begin + BLOCK)
        block = Block(text.tokens[begin:end], max(text.done - begin, 1))
        self.left -= end - text.done
        text.done = end
        return block
