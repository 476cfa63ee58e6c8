"""Text that comes without a file's name, such as from llama.vim: whether it is of a file that would
never be read if its name were known.

``.env``, ``.npmrc``, ``.netrc``, ``.pgpass`` and ``.htpasswd`` hold nothing but lines of one shape,
which no program does for long.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import chain

_SHAPES = tuple(
    re.compile(shape)
    for shape in (
        r"(?:export[ \t]+)?[\w.@/:-]+=(?![=>])",  # .env, .npmrc, .properties
        r"(?:machine|default|login|password|account)(?:[ \t]|$)",  # .netrc
        r"[^:\s]+:(?:\d+|\*):[^:\s]+:[^:\s]+:.",  # .pgpass
        r"[\w.@-]+:[${]\S+$",  # .htpasswd
    )
)
_LINE = re.compile(r"^[ \t]*([^\s#;][^\r\n]*)", re.MULTILINE)
"""A line that is neither empty nor a comment."""


def holds_settings_alone(before: str, after: str) -> bool:
    """Whether a text with the cursor between ``before`` and ``after`` is nothing but settings of
    the kind that hold secrets. The cursor's own line may be unfinished."""
    start, end = before.rfind("\n") + 1, after.find("\n")
    below = after[end:] if end >= 0 else ""
    possible, alone = _SHAPES, True
    for line in chain(_lines(before[:start]), _lines(below)):
        alone = False
        possible = tuple(shape for shape in possible if shape.match(line))
        if not possible:
            return False
    own = before[start:] + after.removesuffix(below)
    return not alone or any(shape.match(line) for line in _lines(own) for shape in _SHAPES)


def _lines(text: str) -> Iterator[str]:
    return (match[1] for match in _LINE.finditer(text))
