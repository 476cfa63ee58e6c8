"""Completions and their fate: what was suggested, and what the developer made of it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from atlasd.store.rows import Accepted, Fate, StoredCompletion
from atlasd.workspace.secrets import mask

if TYPE_CHECKING:
    from sqlite_utils.db import Database

# A fate never goes down: text that was taken stays taken whatever a client reports afterwards.
_RANK: dict[str | None, int] = {
    None: 0,
    "shown": 1,
    "superseded": 2,
    "dismissed": 3,
    "accepted_word": 4,
    "accepted_line": 5,
    "accepted": 6,
}
FATES = tuple(fate for fate in _RANK if fate is not None)


def repository_id(db: Database, root: str | None) -> int | None:
    """The row of a repository, made if it is new."""
    if root is None:
        return None
    found = db.execute("SELECT id FROM repositories WHERE root = ?", [root]).fetchone()
    if found:
        return int(found[0])
    name = root.rstrip("/").rpartition("/")[2]
    row = {"root": root, "name": name, "opened": time.time()}
    inserted = db.execute(
        "INSERT INTO repositories (root, name, opened) VALUES (:root, :name, :opened)", row
    )
    return int(inserted.lastrowid or 0)


def roots(db: Database) -> list[str]:
    return [root for (root,) in db.execute("SELECT root FROM repositories").fetchall()]


def add(db: Database, completion: StoredCompletion) -> None:
    if not completion.trusted:
        return
    row: dict[str, Any] = {
        "id": completion.id,
        "repository": repository_id(db, completion.repository),
        "path": completion.path,
        "language": completion.language,
        "client": completion.client,
        "model": completion.model,
        "source": completion.source,
        "text": mask(completion.text),
        "fate": None,
        "accepted_length": 0,
        "created": completion.created or time.time(),
        "fate_at": None,
        "output_tokens": completion.output_tokens,
        "drafted": completion.drafted,
        "accepted_drafts": completion.accepted_drafts,
        "total_ms": completion.total_ms,
        "decode_ms": completion.decode_ms,
    }
    # A suggestion that is offered again (type-through) keeps the fate it had.
    db.table("completions").insert(row, ignore=True)


def set_fate(db: Database, id: str, fate: Fate, accepted_length: int | None) -> str:
    """Record a fate; returns the text accepted so far, "" for a completion that is not stored."""
    if fate not in _RANK:
        raise ValueError(f"{fate!r} is no fate; there are {', '.join(FATES)}")
    found = db.execute(
        "SELECT text, fate, accepted_length FROM completions WHERE id = ?", [id]
    ).fetchone()
    if found is None:
        return ""
    text, old, before = found
    taken = before
    if fate == "accepted":
        taken = len(text)
    elif fate.startswith("accepted_") and accepted_length is not None:
        taken = max(taken, min(max(accepted_length, 0), len(text)))
        if taken == len(text):
            fate = "accepted"
    if _RANK[fate] >= _RANK[old] or taken > before:
        best = max(fate, old, key=lambda one: _RANK[one])
        changes = {"fate": best, "accepted_length": taken, "fate_at": time.time()}
        db.table("completions").update(id, changes)
    return str(text[:taken])


def accepted(db: Database, repository: str | None, limit: int) -> list[Accepted]:
    """Newest first."""
    where = "accepted_length > 0" + ("" if repository is None else " AND r.root = ?")
    rows = db.execute(
        "SELECT c.id, substr(c.text, 1, c.accepted_length), r.root, c.path, c.language, c.fate_at "
        "FROM completions c LEFT JOIN repositories r ON r.id = c.repository "
        f"WHERE {where} ORDER BY c.fate_at DESC, c.rowid DESC LIMIT ?",
        [*([] if repository is None else [repository]), limit],
    )
    return [Accepted(*row) for row in rows.fetchall()]


def fates(db: Database, repository: str | None) -> dict[str, int]:
    """Counts by fate; ``pending`` are those of which nothing was heard."""
    where = "" if repository is None else "WHERE r.root = ?"
    rows = db.execute(
        "SELECT coalesce(c.fate, 'pending'), count(*) FROM completions c "
        f"LEFT JOIN repositories r ON r.id = c.repository {where} GROUP BY 1 ORDER BY 1",
        [] if repository is None else [repository],
    )
    return {str(fate): int(count) for fate, count in rows.fetchall()}


def retain(db: Database, days: int, rows: int) -> int:
    """Remove completions of before the last ``days`` days of use, and the oldest beyond ``rows``;
    returns how many."""
    limit = first_of_last_days(db, days)
    removed = db.execute("DELETE FROM completions WHERE created < ?", [limit]).rowcount
    removed += db.execute(
        "DELETE FROM completions WHERE id IN "
        "(SELECT id FROM completions ORDER BY created DESC, rowid DESC LIMIT -1 OFFSET ?)",
        [rows],
    ).rowcount
    return int(removed)


def first_of_last_days(db: Database, days: int) -> float:
    """When the first of the last ``days`` days with completions began; 0 if there were not so
    many. Days of use, not of the calendar: a clock that jumps by years is one more day."""
    row = db.execute(
        "SELECT DISTINCT CAST(created / 86400 AS INTEGER) AS day FROM completions "
        "ORDER BY day DESC LIMIT 1 OFFSET ?",
        [days - 1],
    ).fetchone()
    return 0.0 if row is None else row[0] * 86400.0
