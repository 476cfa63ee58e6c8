"""Cutting long texts so that they can be worked through in short steps."""

from __future__ import annotations

import re

_CUT = re.compile(r"\n(?=\S)")


def slices(text: str, size: int, longest: int | None = None) -> list[str]:
    """Cut a text into pieces of about ``size`` characters, at line starts that a tokenizer's
    pre-tokenizer cuts at as well: before a line that does not begin with white space. A piece
    that would become longer than ``longest`` is cut at any line, or anywhere."""
    pieces: list[str] = []
    start, length = 0, len(text)
    while length - start > size:
        last = length if longest is None else min(length, start + longest)
        cut = _CUT.search(text, start + size, last)
        if cut:
            end = cut.end()
        elif last < length:
            end = text.rfind("\n", start, last) + 1 or last
        else:
            break
        pieces.append(text[start:end])
        start = end
    if start < length or not pieces:
        pieces.append(text[start:])
    return pieces
