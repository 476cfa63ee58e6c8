"""Cutting long texts so that they can be worked through in short steps."""

from __future__ import annotations


def slices(text: str, size: int) -> list[str]:
    """Cut a text into pieces of about ``size`` characters, at line starts that a tokenizer's
    pre-tokenizer cuts at as well: before a line that does not begin with white space."""
    pieces: list[str] = []
    start = 0
    while len(text) - start > size:
        end = text.find("\n", start + size) + 1
        while 0 < end < len(text) and text[end].isspace():
            end = text.find("\n", end) + 1
        if end <= 0:
            break
        pieces.append(text[start:end])
        start = end
    if start < len(text) or not pieces:
        pieces.append(text[start:])
    return pieces
