"""Lines and places in them as the protocol counts them.

pygls cuts documents with ``str.splitlines``, which also cuts at form feeds, separators and other
characters that end no line for an editor: behind one of them every position would be wrong. What
lies beyond a line's end is that end; pygls takes the last character of a document for a line feed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from lsprotocol import types
from pygls.workspace import PositionCodec, TextDocument
from pygls.workspace.position_codec import ServerTextPosition

_LINES = "_atlasd_lines"
"""Where a document has the text that was cut last, and its lines."""

_NO_LINE_END = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends: ``\\n``, ``\\r\\n`` and ``\\r``, and nothing else."""
    return _LINE.findall(text) if _NO_LINE_END.search(text) else text.splitlines(True)


def count_lines_by_protocol() -> None:
    """From now on pygls's documents have these lines and places. They are cut once for each of a
    document's texts: a key in a long one asks for them several times."""

    def lines(document: TextDocument) -> Sequence[str]:
        source = document.source
        known: tuple[str, list[str]] | None = getattr(document, _LINES, None)
        if known is None or known[0] is not source:
            known = (source, lines_of(source))
            setattr(document, _LINES, known)
        return known[1]

    def place(
        codec: PositionCodec, lines: Sequence[str], position: types.Position
    ) -> ServerTextPosition:
        if position.line >= len(lines):
            return ServerTextPosition(max(0, len(lines) - 1), len(lines[-1]) if lines else 0)
        line = lines[position.line].rstrip("\r\n")
        return ServerTextPosition(position.line, column(codec, line, position.character))

    setattr(TextDocument, "lines", property(lines))  # noqa: B010 (a property is replaced)
    setattr(PositionCodec, "position_from_client_units", place)  # noqa: B010


def column(codec: PositionCodec, line: str, units: int) -> int:
    """Code points in so many of the client's units of a line, all of them at most."""
    if line.isascii():
        return min(units, len(line))
    passed = 0
    for index, character in enumerate(line):
        if passed >= units:
            return index
        passed += codec.client_num_units(character)
    return len(line)
