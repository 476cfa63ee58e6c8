"""Removing data so that no byte of it stays in the files."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from atlasd.errors import StoreError

if TYPE_CHECKING:
    from sqlite_utils.db import Database

_OWNED = ("completions", "files", "learned")


def purge(db: Database, repository: str | None) -> dict[str, int]:
    """Delete the rows of a repository (None: all tables), then rewrite the file without them.
    Runs outside a transaction. Returns rows removed by table."""
    with db.atomic():
        removed = _delete_all(db) if repository is None else _delete_of(db, repository)
    _checkpoint(db)
    # secure_delete zeroes what was deleted, but pages moved about earlier may hold old copies.
    db.conn.execute("VACUUM")
    _checkpoint(db)
    return removed


def _delete_all(db: Database) -> dict[str, int]:
    tables = (*_OWNED, "machines", "repositories")
    return {table: db.execute(f"DELETE FROM {table}").rowcount for table in tables}


def _delete_of(db: Database, repository: str) -> dict[str, int]:
    found = db.execute("SELECT id FROM repositories WHERE root = ?", [repository]).fetchone()
    if found is None:
        return {}
    removed = {
        table: db.execute(f"DELETE FROM {table} WHERE repository = ?", [found[0]]).rowcount
        for table in _OWNED
    }
    removed["repositories"] = db.execute(
        "DELETE FROM repositories WHERE id = ?", [found[0]]
    ).rowcount
    return removed


def _checkpoint(db: Database) -> None:
    """Move the write-ahead log into the database and empty it."""
    try:
        busy = db.conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    except sqlite3.OperationalError:
        busy = 1
    if busy:
        raise StoreError(
            "The rows are gone, but the write-ahead log could not be emptied: another program "
            "reads the database.",
            "Close it and purge again.",
        )
