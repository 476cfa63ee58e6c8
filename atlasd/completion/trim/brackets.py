"""Rule 10: brackets and quotes that the editor closed by itself right of the cursor are replaced
when the suggestion brings its own; and the counting of brackets that other rules rely on."""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache

from atlasd.completion.languages import Language
from atlasd.completion.trim.place import NEAR, Place

CLOSERS = {")": "(", "]": "[", "}": "{"}
OPENERS = {opener: closer for closer, opener in CLOSERS.items()}


@lru_cache(maxsize=64)
def _scanner(language: Language) -> re.Pattern[str]:
    """Matches strings and comments whole, and single brackets."""
    parts = [r'"""[\s\S]*?"""', r"'''[\s\S]*?'''"] if language.id == "python" else []
    if language.block_comment:
        begin, end = map(re.escape, language.block_comment)
        # To the end where it is not closed: else each of many would be looked for again.
        parts.append(rf"{begin}(?:[\s\S]*?{end}|[\s\S]*)")
    if language.line_comment:
        parts.append(rf"{re.escape(language.line_comment)}[^\n]*")
    for quote in language.quotes:
        line = "" if quote == "`" else r"\n"
        parts.append(rf"{quote}(?:\\.|[^{quote}\\{line}])*{quote}")
    return re.compile("|".join([*parts, r"[\[\](){}]"]))


def unmatched(text: str, language: Language) -> tuple[list[str], list[str]]:
    """(closers without their opener, openers without their closer), in the order of the text."""
    closers: list[str] = []
    openers: list[str] = []
    for match in _scanner(language).finditer(text):
        bracket = match.group()
        if bracket in OPENERS:
            openers.append(bracket)
        elif bracket in CLOSERS:
            if openers and openers[-1] == CLOSERS[bracket]:
                openers.pop()
            elif not openers:
                closers.append(bracket)
    return closers, openers


def wanted_closers(place: Place) -> Counter[str]:
    """Closing brackets that the file lacks around the cursor, within its top-level statement."""
    before, after, whole = _surroundings(place)
    _, openers = unmatched(before, place.language)
    closers, _ = unmatched(after, place.language)
    wanted: Counter[str] = Counter()
    closing = iter([*closers, None])
    closer = next(closing)
    for opener in reversed(openers):
        if closer == OPENERS[opener]:
            closer = next(closing)
        elif closer is not None or whole:
            wanted[OPENERS[opener]] += 1
    return wanted


def excess_closers(place: Place, text: str) -> dict[str, int]:
    """How many closing brackets of each kind the text has beyond those that are wanted."""
    closers, _ = unmatched(text, place.language)
    wanted = wanted_closers(place)
    return {closer: count - wanted[closer] for closer, count in Counter(closers).items()}


def _surroundings(place: Place) -> tuple[str, str, bool]:
    """The cursor's top-level statement, so that a stray bracket far away counts for nothing, and
    whether its end is among the lines that are looked at."""
    lines = [*place.above, place.before]
    start = len(lines) - 1
    while start > 0 and not _is_top_level(place, lines[start]):
        start -= 1
    below: list[str] = []
    for line in place.below:
        if _is_top_level(place, line):
            break
        below.append(line)
    whole = len(below) < NEAR
    return "\n".join(lines[start:]), "\n".join([place.after, *below]), whole


def _is_top_level(place: Place, line: str) -> bool:
    return bool(line.strip()) and not line[0].isspace() and not place.language.continues.match(line)


def replaced_right(place: Place, text: str) -> int:
    """How many characters right of the cursor the suggestion brings itself.

    Only punctuation that an editor closes automatically is ever replaced: ``foo(|)`` completed to
    ``a, b):`` replaces the bracket.
    """
    after = place.after.rstrip()
    if not after or not text or re.search(r"[\w]", after):
        return 0
    consumed = _closed_by(place, text)
    at = 0
    for index, character in enumerate(after):
        if character.isspace():
            continue
        if character not in consumed:
            break
        consumed = consumed[consumed.index(character) + 1 :]
        at = index + 1
    rest = after[at:].strip()
    if at and rest and text.rstrip().endswith(rest):
        return len(after)
    return at


def _closed_by(place: Place, text: str) -> list[str]:
    """Quotes and brackets opened left of the cursor that the text closes, in order."""
    closed: list[str] = []
    rest = text
    if quote := open_quote(place):
        end = re.search(rf"(?<!\\){quote}", text)
        if end is None:
            return []
        closed.append(quote)
        rest = text[end.end() :]
    closers, _ = unmatched(rest, place.language)
    wanted = wanted_closers(place)
    for closer in closers:
        if wanted[closer] > 0:
            wanted[closer] -= 1
        else:
            closed.append(closer)
    return closed


def open_quote(place: Place) -> str | None:
    """The quote of a string that is open at the cursor, within its line."""
    opened: str | None = None
    skip = False
    for character in place.before:
        if skip:
            skip = False
        elif character == "\\":
            skip = True
        elif opened is None and character in place.language.quotes:
            opened = character
        elif character == opened:
            opened = None
    return opened
