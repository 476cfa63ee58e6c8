"""Rule 6: a suggestion completes the block it stands in and ends where that block ends."""

from __future__ import annotations

import re

from atlasd.completion.trim.brackets import unmatched
from atlasd.completion.trim.edges import FEWEST_BYTES
from atlasd.completion.trim.place import Place, columns, indentation

_DIRECTIVE = re.compile(r"#\s*(if|ifdef|ifndef|else|elif|endif|define|undef|pragma|include)\b")
_LEAVES = re.compile(r"\s*(return|raise|throw|break|continue)\b")
_GOES_ON = re.compile(r"([\\,+*/%&|=<>.?:-]|\b(and|or|not|in|is|if|else|from))\s*$")


def ends_scope(place: Place, lines: list[str]) -> int | None:
    """How many lines to keep once the newest line leaves the scope; None while it is inside.

    Where a statement is being completed, the scope is that statement with its block; on a new
    line, it is the lines that are indented at least as far. A line that closes the block belongs
    to it unless the file below closes it already.
    """
    newest = lines[-1]
    if len(lines) == 1 or not newest.strip() or _is_free(place, lines):
        return None
    start = next(index for index, line in enumerate(lines) if (_whole(place, lines, index)).strip())
    if start == len(lines) - 1:
        return _begins_outside(place, newest, lines)
    first = _whole(place, lines, start)
    statement = place.before if start == 0 and not place.on_blank_line else None
    short = _is_short(lines[0]) and not _opens(place, first)
    if statement is not None and (short or _leads_code(place, first)):
        # The line is as good as complete: what follows it is what the suggestion is about.
        statement = None
    if statement is not None and not lines[0].strip():
        start = next((i for i, line in enumerate(lines[1:], 1) if line.strip()), 0)
        if start == len(lines) - 1:
            return _begins_outside(place, newest, lines)
        first = lines[start]
        if columns(first) <= columns(statement):
            statement = None
    if _starts_another(place, lines, start, first):
        return _without_leads(place, lines)
    if _is_unreachable(place, lines):
        return _without_leads(place, lines)
    if place.on_blank_line and place.is_closer(first) and _is_short(first):
        # The bracket ended a statement that began further left: what follows is level with that.
        start = next(index for index in range(start + 1, len(lines)) if lines[index].strip())
        first = lines[start]
    base = columns(statement if statement is not None else first)
    # In a statement that is being completed, only what is indented deeper is part of it.
    inside = columns(newest) > base if statement is not None else columns(newest) >= base
    if inside:
        return None
    return _outside(place, lines, base, statement is not None or _opens(place, first))


def _is_short(rest: str) -> bool:
    return 0 < len(rest.strip().encode()) < FEWEST_BYTES


def _leads_code(place: Place, line: str) -> bool:
    """A decorator or an attribute, but no comment."""
    marks = (place.language.line_comment or "#", "/*", "*")
    return bool(place.language.leads.match(line)) and not line.lstrip().startswith(marks)


def _outside(place: Place, lines: list[str], base: int, opened: bool) -> int | None:
    newest = lines[-1]
    previous = next(line for line in reversed(lines[:-1]) if line.strip() or line is lines[0])
    if columns(newest) == base and newest.strip() == "{" and len(lines) == 2:
        return None
    if opened and columns(newest) == base and place.language.continues.match(newest):
        return None if not _closed_below(place, newest) else len(lines) - 1
    if place.is_closer(newest) and not place.is_closer(previous) and columns(newest) < base:
        return len(lines) - 1 if _closed_below(place, newest) else len(lines)
    return len(lines) - 1


def _begins_outside(place: Place, newest: str, lines: list[str]) -> int | None:
    """The first line that says something stands left of the cursor's own indentation."""
    if columns(newest) >= columns(place.before) or not place.before:
        return None
    if place.language.continues.match(newest) and not _closed_below(place, newest):
        return None
    return 0


def _closed_below(place: Place, line: str) -> bool:
    """Whether the file goes on with a line that closes this block, or stands inside it."""
    if not place.lines_below:
        return False
    below = place.lines_below[0]
    if columns(below) > columns(line):
        return True
    return columns(below) == columns(line) and bool(place.language.continues.match(below))


def _starts_another(place: Place, lines: list[str], start: int, first: str) -> bool:
    """Whether the newest line begins another definition beside the one, or the statements, that
    the suggestion is about."""
    newest = lines[-1]
    language = place.language
    if columns(newest) > columns(first) or not language.definition.match(newest):
        return False
    return any(
        line.strip() and not language.leads.match(line) for line in [first, *lines[start + 1 : -1]]
    )


def _is_unreachable(place: Place, lines: list[str]) -> bool:
    """Whether the newest line stands behind one that leaves the block, at the same level."""
    if place.language.blocks != "indent":
        # The block's closing line would be lost with it.
        return False
    newest = lines[-1]
    before = [_whole(place, lines, index) for index in range(len(lines) - 1)]
    left = next((line for line in reversed(before) if line.strip()), "")
    if columns(left) != columns(newest) or not _LEAVES.match(left) or _GOES_ON.search(left):
        return False
    comment = newest.lstrip().startswith("#")
    return not (comment or place.language.continues.match(newest)) and not any(
        unmatched(left, place.language)
    )


def _without_leads(place: Place, lines: list[str]) -> int:
    keep = len(lines) - 1
    while keep > 1 and (not lines[keep - 1].strip() or place.language.leads.match(lines[keep - 1])):
        keep -= 1
    return keep


def _opens(place: Place, line: str) -> bool:
    return place.opens_block(line) or bool(place.language.definition.match(line))


def _whole(place: Place, lines: list[str], index: int) -> str:
    return place.before + lines[0] if index == 0 else lines[index]


def _is_free(place: Place, lines: list[str]) -> bool:
    """Lines that may stand anywhere: the inside of long strings, and preprocessor lines."""
    if place.language.id in ("c", "cpp") and _DIRECTIVE.match(lines[-1].lstrip()):
        return bool(indentation(place.before))
    text = "\n".join([*place.above, place.before]) + "\n".join(lines[:-1])
    if place.language.id == "python":
        return text.count('"""') % 2 == 1 or text.count("'''") % 2 == 1
    if "`" in place.language.quotes:
        return text.count("`") % 2 == 1
    return False
