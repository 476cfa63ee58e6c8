"""Lines as the protocol counts them.

pygls cuts documents with ``str.splitlines``, which also cuts at form feeds, separators and other
characters that end no line for an editor: behind one of them every position would be wrong.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from pygls.workspace import TextDocument

_LINES = "_atlasd_lines"
"""Where a document has the text that was cut last, and its lines."""

_NO_LINE_END = re.compile("[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends: ``\\n``, ``\\r\\n`` and ``\\r``, and nothing else."""
    return _LINE.findall(text) if _NO_LINE_END.search(text) else text.splitlines(True)


def count_lines_by_protocol() -> None:
    """From now on pygls's documents have these lines. They are cut once for each of a document's
    texts: a key in a long one asks for them several times."""

    def lines(document: TextDocument) -> Sequence[str]:
        source = document.source
        known: tuple[str, list[str]] | None = getattr(document, _LINES, None)
        if known is None or known[0] is not source:
            known = (source, lines_of(source))
            setattr(document, _LINES, known)
        return known[1]

    setattr(TextDocument, "lines", property(lines))  # noqa: B010 (a property is replaced)
