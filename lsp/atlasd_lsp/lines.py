"""Lines as the protocol counts them.

pygls cuts documents with ``str.splitlines``, which also cuts at form feeds, separators and other
characters that end no line for an editor: behind one of them every position would be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pygls.workspace import TextDocument

_NO_LINE_END = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends: ``\\n``, ``\\r\\n`` and ``\\r``, and nothing else."""
    return _LINE.findall(text) if _NO_LINE_END.search(text) else text.splitlines(True)


def count_lines_by_protocol() -> None:
    """From now on pygls's documents have these lines."""

    def lines(document: TextDocument) -> Sequence[str]:
        return lines_of(document.source)

    setattr(TextDocument, "lines", property(lines))  # noqa: B010 (a property is replaced)
