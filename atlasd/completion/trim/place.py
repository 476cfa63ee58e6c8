"""The place a completion goes to, and the small questions about lines that every rule asks."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from atlasd.completion.languages import DEFAULT, Language
from atlasd.completion.request import Indent

TAB = 4
"""Columns a tab counts for when indentations are compared."""

NEAR = 100
"""Lines of the prefix and the suffix that rules look at."""

REACH = 200 * NEAR
"""Characters on either side of the cursor that rules look at: lines that go on are data."""


@dataclass(frozen=True)
class Place:
    """Text before and after the cursor, the language, and what the client wants."""

    prefix: str
    suffix: str = ""
    language: Language = DEFAULT
    single_line: bool | None = None
    """None: single-line when something other than space stands right of the cursor."""
    indent: Indent | None = None
    """The editor's setting; without one it is read off the text around."""
    invoked: bool = False
    """Asked for by hand: short suggestions are welcome."""
    markers: tuple[str, ...] = field(default=())
    """Text of the model's special tokens, which must never be shown."""

    @cached_property
    def before(self) -> str:
        """The cursor's line, left of the cursor."""
        return self.prefix[self.prefix.rfind("\n") + 1 :][-REACH:]

    @cached_property
    def after(self) -> str:
        """The cursor's line, right of the cursor."""
        return self.suffix.split("\n", 1)[0].rstrip("\r")[:REACH]

    @cached_property
    def one_line(self) -> bool:
        return bool(self.after.strip()) if self.single_line is None else self.single_line

    @cached_property
    def above(self) -> list[str]:
        """The lines above the cursor's, nearest last."""
        # Documents are long: only what is near is cut out of them.
        near = self.prefix.rsplit("\n", NEAR + 1)[-NEAR - 1 :]
        return "\n".join([*near[:-1], ""])[-REACH:].splitlines()[-NEAR:]

    @cached_property
    def below(self) -> list[str]:
        """The lines below the cursor's, nearest first."""
        rest = self.suffix.partition("\n")[2]
        return rest[:REACH].splitlines()[:NEAR]

    @cached_property
    def line_above(self) -> str:
        """The nearest line above that is not blank."""
        return next((line for line in reversed(self.above) if line.strip()), "")

    @cached_property
    def lines_below(self) -> list[str]:
        """Up to three lines below that are not blank."""
        return [line for line in self.below if line.strip()][:3]

    @cached_property
    def on_blank_line(self) -> bool:
        return not self.before.strip()

    def opens_block(self, line: str) -> bool:
        return bool(self.language.openers.search(self.code_of(line)))

    def is_closer(self, line: str) -> bool:
        return bool(line.strip() and self.language.closers.match(line))

    def code_of(self, line: str) -> str:
        """The line without a comment at its end."""
        mark = self.language.line_comment
        at = line.find(f" {mark}") if mark else -1
        return line[:at].rstrip() if at >= 0 else line.rstrip()


def indentation(line: str) -> str:
    return line[: len(line) - len(line.lstrip(" \t"))]


def columns(line: str) -> int:
    """How far a line is indented; a tab goes to the next multiple of TAB."""
    width = 0
    for character in indentation(line):
        width = width + TAB - width % TAB if character == "\t" else width + 1
    return width


def squeezed(text: str) -> str:
    """The text without any white space: equal for lines that differ in layout only."""
    return re.sub(r"\s+", "", text)


def first_lines(lines: Iterable[str], count: int) -> list[str]:
    """The first lines that are not blank."""
    return [line for line in lines if line.strip()][:count]


def distance_within(first: str, second: str, limit: int) -> bool:
    """Whether the edit distance (Levenshtein) of two texts is at most ``limit``."""
    if abs(len(first) - len(second)) > limit:
        return False
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(second, 1):
            cost = previous if left == right else 1 + min(previous, row[j], row[j - 1])
            previous, row[j] = row[j], cost
        if min(row) > limit:
            return False
    return row[-1] <= limit


def similar(first: str, second: str) -> bool:
    """Equal but for layout and an edit distance of 5 %, or of 1 in a text that says something."""
    first, second = squeezed(first), squeezed(second)
    if first == second:
        return True
    length = max(len(first), len(second))
    if length < 8 or length > 400:
        return False
    return distance_within(first, second, max(1, length // 20))
