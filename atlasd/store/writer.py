"""The one thread that touches the database file: opens it safely, commits in groups."""

from __future__ import annotations

import os
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from atlasd.errors import StoreError

if TYPE_CHECKING:
    from sqlite_utils.db import Database

T = TypeVar("T")
GROUP = 256
CHECKED_BYTES = 32 << 20
"""A file up to this size is checked whole when it is opened; a larger one would delay the start."""


@dataclass
class _Job:
    run: Callable[[Database], Any]
    future: Future[Any]
    alone: bool


class Writer:
    """Runs functions of a ``Database`` in the order they came. What waits is committed together,
    each function in a savepoint of its own, and a future is resolved after its commit."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._opened: Future[None] = Future()
        self._closed = False
        self._thread = threading.Thread(target=self._main, name="atlasd-store", daemon=True)
        self._thread.start()

    @property
    def opened(self) -> Future[None]:
        """Resolved when the file is open and migrated; fails with ``StoreError``."""
        return self._opened

    def submit(self, run: Callable[[Database], T], *, alone: bool = False) -> Future[T]:
        """``alone``: outside any transaction (VACUUM, checkpoints)."""
        if self._closed:
            raise StoreError("The database is closed.")
        future: Future[T] = Future()
        self._jobs.put(_Job(run, future, alone))
        return future

    def close(self) -> None:
        """Finish what was submitted and close the file. Blocks."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()

    def _main(self) -> None:
        try:
            db = open_database(self.path)
        except BaseException as error:
            self._opened.set_exception(explained(error, self.path))
            self._refuse()
            return
        self._opened.set_result(None)
        while batch := self._next_batch():
            self._run(db, batch)
        with suppress(
            sqlite3.Error
        ):  # it only makes the next start quicker, and a disk may be full
            db.conn.execute("PRAGMA optimize")
        db.close()
        self._refuse()

    def _next_batch(self) -> list[_Job]:
        """All that waits, up to a job that must run alone; empty: it is time to end."""
        first = self._jobs.get()
        if first is None:
            return []
        batch = [first]
        while not batch[-1].alone and len(batch) < GROUP:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if job is None:
                self._jobs.put(None)
                break
            batch.append(job)
        return batch

    def _run(self, db: Database, batch: list[_Job]) -> None:
        batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
        grouped = [job for job in batch if not job.alone]
        outcomes: list[tuple[_Job, Any, BaseException | None]] = []
        try:
            if grouped:
                with db.atomic():
                    for job in grouped:
                        try:
                            with db.atomic():
                                outcomes.append((job, job.run(db), None))
                        except Exception as error:
                            outcomes.append((job, None, error))
        except BaseException as error:
            outcomes = [(job, None, error) for job in grouped]
        for job in batch:
            if job.alone:
                try:
                    outcomes.append((job, job.run(db), None))
                except Exception as error:
                    outcomes.append((job, None, error))
        for job, result, failure in outcomes:
            if failure is None:
                job.future.set_result(result)
            else:
                job.future.set_exception(explained(failure, self.path))

    def _refuse(self) -> None:
        self._closed = True
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None and job.future.set_running_or_notify_cancel():
                job.future.set_exception(StoreError("The database is closed."))


def open_database(path: Path) -> Database:
    """Open or create the file, 0600, and bring its schema up to date. A file that cannot be used
    is left exactly as it is."""
    # Imported here because it takes a while, and the daemon answers before it has a database.
    from sqlite_utils.db import Database

    from atlasd.store.migrations import migrations, names

    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = not path.exists()
    # SQLite gives -wal and -shm the mode of the database itself.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    for suffix in ("", "-wal", "-shm"):
        beside = Path(f"{path}{suffix}")
        if beside.exists():
            beside.chmod(0o600)
    connection = sqlite3.connect(path, timeout=10.0)
    try:
        db = Database(connection, execute_plugins=False)
        connection.execute("PRAGMA busy_timeout = 10000")
        if not new:
            _refuse_damaged(connection, path)
            _refuse_newer({step.name for step in migrations.applied(db)} - set(names()), path)
        connection.execute("PRAGMA journal_mode = WAL")
        # NORMAL would lose the last commits on power loss in WAL mode; FULL syncs each commit.
        connection.execute("PRAGMA synchronous = FULL")
        # Deleted text is overwritten with zeros, and sorting never spills it to a temporary file.
        connection.execute("PRAGMA secure_delete = ON")
        connection.execute("PRAGMA temp_store = MEMORY")
        connection.execute("PRAGMA foreign_keys = ON")
        migrations.apply(db)
    except BaseException:
        connection.close()
        raise
    return db


def _refuse_damaged(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if path.stat().st_size <= CHECKED_BYTES:
        [(verdict,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict.rpartition("\n")[2])


def _refuse_newer(unknown: set[str], path: Path) -> None:
    if unknown:
        raise StoreError(
            f"{path} was written by a newer atlasd ({', '.join(sorted(unknown))}).",
            "Update atlasd, or set ATLASD_HOME to another folder; the file was not touched.",
        )


def explained(error: BaseException, path: Path) -> BaseException:
    """SQLite's words turned into what happened and what to do."""
    if isinstance(error, PermissionError):
        return StoreError(f"{path} cannot be opened: {error.strerror}.", "Check who owns it.")
    if isinstance(error, OSError):
        return StoreError(f"{path} cannot be opened: {error.strerror}.", "Check the disk.")
    if not isinstance(error, sqlite3.Error):
        return error
    text = str(error)
    if "full" in text:
        return StoreError("The disk is full: nothing can be stored.", "Make room; then go on.")
    if "locked" in text or "busy" in text:
        return StoreError(f"{path} is in use by another program.", "Close it and try again.")
    if "readonly" in text:
        return StoreError(f"{path} cannot be written.", "Check its owner and its file system.")
    if isinstance(error, sqlite3.DatabaseError) and not isinstance(
        error, sqlite3.IntegrityError | sqlite3.ProgrammingError | sqlite3.OperationalError
    ):
        return StoreError(
            f"{path} is damaged ({text}).",
            f"Move it aside (mv {path} {path}.damaged) and start again with an empty one, or "
            f"try: sqlite3 {path} .recover. The file was not changed.",
        )
    return StoreError(f"The database could not do what was asked: {text}.")
