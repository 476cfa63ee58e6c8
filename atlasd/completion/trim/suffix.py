"""Rules 2, 3 and 7: a suggestion stops where the text below begins, and does not repeat it."""

from __future__ import annotations

import re

from atlasd.completion.trim.brackets import CLOSERS, excess_closers, open_quote
from atlasd.completion.trim.place import Place, columns, squeezed

LOOK = 400
"""Characters of the suffix that a suggestion's end is compared with."""

_PUNCTUATION = frozenset(")]};,:\"'`>")


def ends_at_line_below(place: Place, lines: list[str]) -> int | None:
    """Ends where the newest line is the next line of the file, in layout and words.

    A line that is indented otherwise is another line: an early ``return x`` stays, unless it is
    long enough to be no accident.
    """
    if place.after.strip() or not place.lines_below:
        return None
    newest, below = lines[-1], place.lines_below[0]
    if len(lines) == 1:
        if not place.on_blank_line:
            return None
        newest = place.before + newest
    same = _words(newest) == _words(below) and bool(newest.strip())
    if same and (columns(newest) == columns(below) or len(squeezed(newest)) >= 24):
        return len(lines) - 1
    return None


def _words(line: str) -> str:
    return squeezed(line).rstrip(",;")


def cut_at_suffix(place: Place, text: str) -> str:
    """Cuts where the rest of the cursor's line begins again inside the suggestion."""
    rest = place.after.strip()
    if len(rest) < 3 or not re.search(r"\w", rest):
        return text
    at = text.find(rest)
    return text[:at] if at >= 0 else text


def overlap(place: Place, text: str) -> str:
    """Takes off the longest end of the suggestion that the suffix begins with, white space aside.

    Closing brackets come off only where the file around would otherwise have one too many.
    """
    head = squeezed(place.suffix[:LOOK])
    kept = [index for index, character in enumerate(text) if not character.isspace()]
    tail = "".join(text[index] for index in kept)
    for length in range(min(len(head), len(tail)), 0, -1):
        if tail[-length:] == head[:length]:
            start = kept[-length]
            if _is_repeated(place, text, start, tail[-length:]):
                return text[:start].rstrip(" \t") if start else ""
    return text


def _is_repeated(place: Place, text: str, start: int, shared: str) -> bool:
    if all(character in _PUNCTUATION for character in shared):
        return _is_repeated_punctuation(place, text, start, shared)
    if place.after.strip():
        glued = not place.suffix[:1].isspace()
        return glued or not _inside_word(text, start)
    # The suffix goes on in the next line, so the repetition must be whole lines as well.
    return _begins_below(place, text, start) and len(shared) >= len(squeezed(place.lines_below[0]))


def _is_repeated_punctuation(place: Place, text: str, start: int, shared: str) -> bool:
    if shared[0] in place.language.quotes:
        # The quote that closes the string with the cursor in it, and not another string's.
        mine = open_quote(place) == shared[0] and shared[0] not in text[:start]
        return mine and bool(place.after.strip())
    closers = [character for character in shared if character in CLOSERS]
    if closers:
        if not place.after.strip() and "\n" in text and not _begins_below(place, text, start):
            return False
        excess = excess_closers(place, text)
        return all(closers.count(each) <= excess.get(each, 0) for each in set(closers))
    return bool(place.after.strip())


def _begins_below(place: Place, text: str, start: int) -> bool:
    """Whether the text, from there on, begins a line that is indented as the next line is."""
    if not place.lines_below:
        return False
    lead = (place.before + text[:start]).rpartition("\n")[2]
    whole = "\n" in text[:start] or place.on_blank_line
    return whole and not lead.strip() and columns(lead + "x") == columns(place.lines_below[0])


def _inside_word(text: str, start: int) -> bool:
    return start > 0 and bool(re.match(r"\w\w", text[start - 1 : start + 1]))


def closing_line(place: Place, text: str) -> str:
    """Drops a last line that only closes a block which the next line of the file closes."""
    head, newline, last = text.rstrip().rpartition("\n")
    if not newline or not place.is_closer(last) or not place.lines_below:
        return text
    below = place.lines_below[0]
    if squeezed(below).startswith(squeezed(last)) and columns(below) == columns(last):
        return head
    return text
