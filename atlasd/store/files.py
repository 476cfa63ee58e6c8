"""Files that were indexed, each with a generation that rises when its content changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atlasd.store.completions import repository_id
from atlasd.store.rows import FileRow

if TYPE_CHECKING:
    from sqlite_utils.db import Database

_PUT = """
INSERT INTO files (repository, path, language, size, mtime_ns, hash, tokens, key, generation)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)
ON CONFLICT (repository, path) DO UPDATE SET
    generation = generation + (hash IS NOT excluded.hash),
    language = excluded.language, size = excluded.size, mtime_ns = excluded.mtime_ns,
    hash = excluded.hash, tokens = excluded.tokens, key = excluded.key
"""


def put(db: Database, repository: str, rows: list[FileRow]) -> None:
    owner = repository_id(db, repository)
    db.conn.executemany(
        _PUT,
        [
            (owner, row.path, row.language, row.size, row.mtime_ns, row.hash, row.tokens, row.key)
            for row in rows
        ],
    )


def drop(db: Database, repository: str, paths: list[str]) -> None:
    # A repository that was purged must not come back by it.
    db.conn.executemany(
        "DELETE FROM files WHERE path = ? AND repository ="
        " (SELECT id FROM repositories WHERE root = ?)",
        [(path, repository) for path in paths],
    )


def known(db: Database, repository: str) -> dict[str, FileRow]:
    rows = db.execute(
        "SELECT path, language, size, mtime_ns, hash, tokens, key, generation "
        "FROM files JOIN repositories ON repositories.id = files.repository WHERE root = ?",
        [repository],
    )
    return {row[0]: FileRow(*row) for row in rows.fetchall()}
