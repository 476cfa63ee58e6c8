"""Rows that tests of the store put in."""

from __future__ import annotations

from atlasd.store.rows import FileRow


def file_row(path: str, content: bytes = b"1", tokens: int = 3) -> FileRow:
    return FileRow(path, "python", len(content), 7, content, tokens, "key")
