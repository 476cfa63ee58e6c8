"""What the engine learned, kept for it between its lives: opaque bytes under exact keys.

State is found again only under the very key it was saved with, so a changed model or tokenizer
finds nothing, and going back to the former one finds everything.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from atlasd.store.completions import repository_id
from atlasd.store.rows import LearnedRow

if TYPE_CHECKING:
    from sqlite_utils.db import Database


def save(db: Database, row: LearnedRow) -> None:
    owner = repository_id(db, row.repository) or 0
    db.execute(
        "INSERT OR REPLACE INTO learned (kind, repository, model, payload, saved) "
        "VALUES (?, ?, ?, ?, ?)",
        [row.kind, owner, row.model, row.payload, time.time()],
    )


def of_model(db: Database, model: str) -> list[LearnedRow]:
    rows = db.execute(
        "SELECT kind, root, model, payload FROM learned "
        "LEFT JOIN repositories ON repositories.id = learned.repository "
        "WHERE model = ? ORDER BY saved, kind",
        [model],
    )
    return [LearnedRow(*row) for row in rows.fetchall()]


def save_costs(db: Database, machine: str, model: str, payload: bytes) -> None:
    db.execute(
        "INSERT INTO machines (machine, model, costs, saved) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (machine, model) DO UPDATE SET costs = excluded.costs, saved = excluded.saved",
        [machine, model, payload, time.time()],
    )


def costs(db: Database, machine: str, model: str) -> bytes | None:
    row = db.execute(
        "SELECT costs FROM machines WHERE machine = ? AND model = ?", [machine, model]
    ).fetchone()
    return None if row is None else bytes(row[0])


def forget_stale(db: Database, before: float) -> int:
    """Remove state that was not saved again since ``before``: of models no longer used."""
    return int(db.execute("DELETE FROM learned WHERE saved < ?", [before]).rowcount)
