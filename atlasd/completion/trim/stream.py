"""The rules that end a suggestion, line by line as it arrives, so that decoding can stop there."""

from __future__ import annotations

from collections.abc import Callable

from atlasd.completion.trim.place import Place
from atlasd.completion.trim.repetition import (
    ends_in_repetition,
    ends_rewriting_above,
    loop_in_line,
)
from atlasd.completion.trim.scope import ends_scope
from atlasd.completion.trim.single_line import ends_single_line
from atlasd.completion.trim.suffix import ends_at_line_below

Ends = Callable[[Place, list[str]], int | None]
"""Given the lines so far (the newest is complete), how many to keep if the text ends here."""

ENDING_RULES: tuple[tuple[str, Ends], ...] = (
    ("line below", ends_at_line_below),
    ("single line", ends_single_line),
    ("rewrites above", ends_rewriting_above),
    ("repetition", ends_in_repetition),
    ("scope", ends_scope),
)


class Watch:
    """Reads a suggestion as it is decoded and tells when it is over.

    ``text`` is what is kept and ``rule`` the name of the rule that ended it. Neither depends on
    how the text was cut into chunks.
    """

    def __init__(self, place: Place) -> None:
        self.rule: str | None = None
        self._place = place
        self._lines: list[str] = []
        self._partial = ""
        self._kept: str | None = None

    @property
    def text(self) -> str:
        if self._kept is not None:
            return self._kept
        return "\n".join([*self._lines, self._partial])

    def feed(self, text: str) -> bool:
        """Take more text; True once the suggestion is over and nothing more is wanted."""
        if self._kept is not None:
            return True
        *complete, rest = (self._partial + text).split("\n")
        for line in complete:
            if self._ends(line):
                return True
        checked = len(self._partial) if not complete else 0
        self._partial = rest
        return self._loops(rest, checked)

    def finish(self) -> str:
        """The text ends here: the last line is judged as if it were complete."""
        if self._kept is None and self._partial.strip():
            last, self._partial = self._partial, ""
            whole = "\n".join([*self._lines, last])
            if self._ends(last) and self._kept == whole:
                # Complete as it is: nothing was ended.
                self.rule = None
            self._kept = self._kept if self._kept is not None else whole
        return self.text

    def _ends(self, line: str) -> bool:
        if self._loops(line):
            return True
        self._lines.append(line)
        for name, rule in ENDING_RULES:
            keep = rule(self._place, self._lines)
            if keep is not None:
                self.rule, self._kept = name, "\n".join(self._lines[:keep])
                return True
        return False

    def _loops(self, line: str, checked: int = 0) -> bool:
        at = loop_in_line(line, checked)
        if at is None:
            return False
        self.rule = "loop in line"
        self._kept = "\n".join([*self._lines, line[:at]])
        return True
