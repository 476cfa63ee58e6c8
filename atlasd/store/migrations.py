"""The schema, as numbered steps. A step that was released is never changed: add another one."""

from __future__ import annotations

from sqlite_utils.db import Database
from sqlite_utils.migrations import Migrations

migrations = Migrations("atlasd")
"""sqlite-utils runs each step in a transaction together with the record of its name."""


@migrations()
def m001_repositories_and_completions(db: Database) -> None:
    db.table("repositories").create(
        {"id": int, "root": str, "name": str, "opened": float}, pk="id", not_null={"root"}
    )
    db.table("repositories").create_index(["root"], unique=True)
    db.table("completions").create(
        {
            "id": str,
            "repository": int,
            "path": str,
            "language": str,
            "client": str,
            "model": str,
            "source": str,
            "text": str,
            "fate": str,
            "accepted_length": int,
            "created": float,
            "fate_at": float,
            "output_tokens": int,
            "drafted": int,
            "accepted_drafts": int,
            "total_ms": float,
            "decode_ms": float,
        },
        pk="id",
        not_null={"text", "created"},
        foreign_keys=[("repository", "repositories", "id")],
    )
    db.table("completions").create_index(["repository", "fate_at"])
    db.table("completions").create_index(["created"])


@migrations()
def m002_files(db: Database) -> None:
    db.table("files").create(
        {
            "repository": int,
            "path": str,
            "language": str,
            "size": int,
            "mtime_ns": int,
            "hash": bytes,
            "tokens": int,
            "key": str,
            "generation": int,
        },
        pk=("repository", "path"),
        not_null={"repository", "path", "generation"},
        foreign_keys=[("repository", "repositories", "id")],
    )


@migrations()
def m003_learned_state_and_costs(db: Database) -> None:
    # A repository of 0 stands for "of no one repository": NULL would be distinct from itself
    # in the primary key, and the same state would be kept many times.
    db.table("learned").create(
        {"kind": str, "repository": int, "model": str, "payload": bytes, "saved": float},
        pk=("kind", "repository", "model"),
        not_null={"kind", "repository", "model", "payload"},
    )
    db.table("machines").create(
        {"machine": str, "model": str, "costs": bytes, "threads": int, "saved": float},
        pk=("machine", "model"),
        not_null={"machine", "model"},
    )


def names() -> list[str]:
    """The names of all steps this program knows, in order."""
    with Database(memory=True) as empty:
        return [step.name for step in migrations.pending(empty)]
