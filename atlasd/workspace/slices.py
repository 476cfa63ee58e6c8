"""Cutting long texts so that they can be worked through in short steps."""

from __future__ import annotations

import re

_CUT = re.compile(r"\n(?=\S)")


def slices(text: str, size: int) -> list[str]:
    """Cut a text into pieces of about ``size`` characters, at line starts that a tokenizer's
    pre-tokenizer cuts at as well: before a line that does not begin with white space."""
    pieces: list[str] = []
    start = 0
    while len(text) - start > size and (cut := _CUT.search(text, start + size)):
        pieces.append(text[start : cut.end()])
        start = cut.end()
    if start < len(text) or not pieces:
        pieces.append(text[start:])
    return pieces
