"""Looking at what is stored, and taking it along as rows."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from atlasd.store import completions

if TYPE_CHECKING:
    from sqlite_utils.db import Database

TABLES = ("repositories", "files", "completions", "learned", "machines")
PAGE = 500
_NAMED = "LEFT JOIN repositories ON repositories.id = t.repository"


def summary(db: Database, repository: str | None) -> dict[str, object]:
    """JSON-ready: per repository files, tokens, completions by fate, learned state, bytes."""
    roots = db.execute("SELECT id, root, name FROM repositories ORDER BY root").fetchall()
    chosen = [row for row in roots if repository is None or row[1] == repository]
    pages, page = (
        db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
    )
    machines = [
        {"machine": machine, "model": model, "bytes": size}
        for machine, model, size in db.execute(
            "SELECT machine, model, coalesce(length(costs), 0) FROM machines ORDER BY 1, 2"
        ).fetchall()
    ]
    return {
        "bytes": pages * page,
        "completions": completions.fates(db, repository),
        "repositories": [_of_repository(db, *row) for row in chosen],
        "learned": _learned(db, 0),
        "machines": machines,
    }


def _of_repository(db: Database, id: int, root: str, name: str) -> dict[str, object]:
    files, tokens = db.execute(
        "SELECT count(*), coalesce(sum(tokens), 0) FROM files WHERE repository = ?", [id]
    ).fetchone()
    characters, accepted = db.execute(
        "SELECT coalesce(sum(length(text)), 0), coalesce(sum(accepted_length), 0) "
        "FROM completions WHERE repository = ?",
        [id],
    ).fetchone()
    return {
        "root": root,
        "name": name,
        "files": files,
        "tokens": tokens,
        "completions": completions.fates(db, root),
        "suggested_characters": characters,
        "accepted_characters": accepted,
        "learned": _learned(db, id),
    }


def _learned(db: Database, repository: int) -> list[dict[str, object]]:
    rows = db.execute(
        "SELECT kind, model, length(payload), saved FROM learned WHERE repository = ? "
        "ORDER BY kind, model",
        [repository],
    )
    names = ("kind", "model", "bytes", "saved")
    return [dict(zip(names, row, strict=True)) for row in rows.fetchall()]


def page(db: Database, table: str, after: int, repository: str | None) -> tuple[list[Any], int]:
    """Rows of a table beyond a rowid as (dictionaries, rowid to go on from)."""
    where, values = "t.rowid > ?", [after]
    join = "" if table in ("repositories", "machines") else _NAMED
    root = "" if not join else ", repositories.root AS repository_root"
    arguments: list[object] = list(values)
    if repository is not None:
        where += " AND root = ?" if table != "machines" else " AND 0 = ?"
        arguments.append(repository if table != "machines" else 1)
    cursor = db.execute(
        f"SELECT t.rowid AS _rowid, t.*{root} FROM {table} t {join} "
        f"WHERE {where} ORDER BY t.rowid LIMIT {PAGE}",
        arguments,
    )
    columns = [column[0] for column in cursor.description]
    rows = [dict(zip(columns, values, strict=True)) for values in cursor.fetchall()]
    last = rows[-1]["_rowid"] if rows else after
    return [_portable(table, row) for row in rows], last


def _portable(table: str, row: dict[str, Any]) -> dict[str, object]:
    """Without row numbers, bytes as base64, the repository by its root."""
    row.pop("_rowid")
    if "repository_root" in row:
        row["repository"] = row.pop("repository_root")
    encoded = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value
        for name, value in row.items()
    }
    return {"table": table, **encoded}
