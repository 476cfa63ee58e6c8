"""What stands around a cursor, in the words the daemon understands."""

from __future__ import annotations

from pathlib import Path

from lsprotocol import types
from pygls.uris import to_fs_path
from pygls.workspace import TextDocument


def file_path(uri: str) -> str | None:
    """The path behind a ``file:`` URI; None for untitled, remote and virtual documents."""
    return to_fs_path(uri) if uri.startswith("file:") else None


def owning_root(path: str | None, roots: list[str]) -> str | None:
    """The innermost of the workspace folders that holds ``path``."""
    if path is None:
        return None
    holding = [root for root in roots if Path(path).is_relative_to(root)]
    return max(holding, key=len, default=None)


NEAR = 1 << 18
"""Characters around a cursor that matter: more than any prompt takes."""


def around(source: str, offset: int) -> tuple[str, str]:
    """The text before and behind a cursor, as far as it matters. Where a long document begins moves
    in steps, so that what was computed of it is found again at the next key."""
    begin = max(0, offset - NEAR) // NEAR * NEAR
    return source[begin:offset], source[offset : offset + NEAR]


def offset_at(document: TextDocument, position: types.Position) -> int:
    """Code-point offset of a client position; positions beyond a line's end count as its end."""
    lines = document.lines
    if position.line >= len(lines):
        return len(document.source)
    before = sum(map(len, lines[: position.line]))
    local = document.position_codec.position_from_client_units(lines, position)
    return before + local.character


def range_right(document: TextDocument, position: types.Position, characters: int) -> types.Range:
    """The range from the cursor over ``characters`` code points right of it, in client units."""
    lines = document.lines
    units = 0
    if characters and position.line < len(lines):
        line = lines[position.line].rstrip("\r\n")
        local = document.position_codec.position_from_client_units(lines, position)
        covered = line[local.character : local.character + characters]
        units = document.position_codec.client_num_units(covered)
    end = types.Position(line=position.line, character=position.character + units)
    return types.Range(start=position, end=end)
