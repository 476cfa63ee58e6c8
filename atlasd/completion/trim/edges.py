"""Rules 1, 11 and 12: what must not stand at the edges of a suggestion, or be one."""

from __future__ import annotations

import re

from atlasd.completion.trim.place import Place, columns

FEWEST_BYTES = 4
"""Less than this is quicker typed than read."""

_FENCE = re.compile(r"^[ \t]*```[^\n]*$", re.M)


def markers(place: Place, text: str) -> str:
    """Cuts at the first special token that was spelled out as text, unless the file spells it."""
    spelled = [marker for marker in place.markers if marker in text]
    # Documents are long, and texts that spell a marker are few.
    file = place.prefix + place.suffix if spelled else ""
    cuts = [text.find(marker) for marker in spelled if marker not in file]
    return text[: min(cuts)] if cuts else text


def code_fences(place: Place, text: str) -> str:
    """Takes the code out of the fences that chat models put around it."""
    if place.language.id == "markdown" or "```" not in text:
        return text
    fences = list(_FENCE.finditer(text))
    if not fences:
        return text
    if text[: fences[0].start()].strip():
        return text[: fences[0].start()]
    end = fences[1].start() if len(fences) > 1 else len(text)
    return text[fences[0].end() + 1 : end]


def incomplete_line(place: Place, text: str) -> str:
    """Of a text that was cut off at its length, keeps whole lines if it has any."""
    head, newline, _ = text.rpartition("\n")
    return head if newline and head.strip() else text


def leading_lines(place: Place, text: str) -> str:
    """Begins at the cursor: on an indented blank line, blank lines in front come off together
    with the indentation that is there already; elsewhere at most two stay."""
    body = text.lstrip("\r\n \t")
    lead = text[: len(text) - len(body)]
    if "\n" not in lead or not place.on_blank_line or not body:
        return text
    indent = lead.rpartition("\n")[2]
    if place.before and columns(indent + "x") >= columns(place.before + "x"):
        return indent.removeprefix(place.before) + body
    blank = 0
    for line in reversed(place.above):
        if line.strip():
            break
        blank += 1
    allowed = max(0, 2 - blank) if place.line_above else 0
    return "\n" * min(lead.count("\n"), allowed) + indent + body


def trailing_space(place: Place, text: str) -> str:
    """Takes off white space at the end, and before ends of lines."""
    return re.sub(r"[ \t\r]+(?=\n)", "", text.rstrip())


def double_space(place: Place, text: str) -> str:
    """Drops one space where the text left of the cursor ends with it already."""
    if place.before.endswith(" ") and not place.on_blank_line and text.startswith(" "):
        return text[1:]
    return text


def too_short(place: Place, text: str) -> str:
    """Drops what is only white space, or too little to be worth reading."""
    said = text.strip()
    if not said or (not place.invoked and len(said.encode()) < FEWEST_BYTES):
        return ""
    return text
