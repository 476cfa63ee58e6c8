"""The database file: modes, migrations, damage, durability, purging."""

# ruff: noqa: ASYNC220, ASYNC240 (nothing else waits for the loop of a test)

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from sqlite_utils.db import Database

from atlasd.errors import StoreError
from atlasd.store.database import Store
from atlasd.store.migrations import migrations, names
from atlasd.store.rows import LearnedRow, StoredCompletion
from atlasd.store.writer import Writer
from tests.unit.store.rows import file_row


async def test_only_the_user_may_read_the_files(path: Path) -> None:
    before = os.umask(0)
    try:
        store = await Store.open(path)
        await store.add_completion(StoredCompletion("a", "text"))
        found = sorted(path.parent.iterdir())
        assert [p.name for p in found] == ["atlasd.db", "atlasd.db-shm", "atlasd.db-wal"]
        assert {stat.S_IMODE(p.stat().st_mode) for p in found} == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        await store.close()
        path.chmod(0o644)
        await (await Store.open(path)).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


async def test_commits_are_synced_and_deleted_text_is_overwritten(path: Path) -> None:
    writer = Writer(path)
    await asyncio.wrap_future(writer.opened)

    def settings(db: Database) -> list[object]:
        wanted = ("journal_mode", "synchronous", "secure_delete", "foreign_keys", "temp_store")
        return [db.execute(f"PRAGMA {name}").fetchone()[0] for name in wanted]

    full, memory = 2, 2
    assert await asyncio.wrap_future(writer.submit(settings)) == ["wal", full, 1, 1, memory]
    writer.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from atlasd.store.database import Store
from atlasd.store.rows import StoredCompletion

async def main():
    store = await Store.open(Path(sys.argv[1]))
    async def one(number):
        await store.add_completion(StoredCompletion(str(number), f"text {number}"))
        await store.set_fate(str(number), "accepted")
        print(number, flush=True)
    for start in range(0, 100000, 8):
        await asyncio.gather(*(one(n) for n in range(start, start + 8)))

asyncio.run(main())
"""


async def test_kill_9_loses_no_row_that_was_acknowledged(path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    told = [process.stdout.readline().strip() for _ in range(100)]
    process.send_signal(signal.SIGKILL)
    told += process.stdout.read().split()
    process.wait()
    process.stdout.close()
    acknowledged = {number.decode() for number in told}
    assert len(acknowledged) >= 100
    store = await Store.open(path)
    kept = {accepted.id: accepted.text for accepted in await store.accepted(None, limit=10**6)}
    assert acknowledged <= set(kept)
    assert all(text == f"text {number}" for number, text in kept.items())
    await store.close()


@pytest.mark.parametrize("applied", range(len(names()) + 1))
async def test_a_database_of_every_earlier_version_is_brought_up_to_date(
    path: Path, applied: int
) -> None:
    path.parent.mkdir()
    with Database(path) as db:
        if applied < len(names()):
            migrations.apply(db, stop_before=names()[applied])
        else:
            migrations.apply(db)
        if applied >= 1:
            row = {"root": "/code", "name": "code", "opened": 1.0}
            db.table("repositories").insert(row)
            row = {"id": "old", "repository": 1, "text": "kept", "created": 4e9}
            db.table("completions").insert(row)
    store = await Store.open(path)
    assert await store.set_fate("old", "accepted") == ("kept" if applied else "")
    await store.put_files("/code", [file_row("a.py")])
    await store.save_costs("machine", "model", b"costs")
    await store.close()
    with Database(path) as db:
        assert [m.name for m in migrations.applied(db)] == names()
        assert not migrations.pending(db)


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await Store.open(path)
    await store.add_completion(StoredCompletion("a", "text"))
    await store.close()

    def m999_breaks(db: Database) -> None:
        db.execute("DROP TABLE completions")
        raise sqlite3.OperationalError("no such function: nothing")

    before = list(migrations._migrations)
    migrations(name="m999_breaks")(m999_breaks)
    try:
        with pytest.raises(StoreError):
            await Store.open(path)
    finally:
        migrations._migrations[:] = before
    store = await Store.open(path)
    assert await store.set_fate("a", "accepted") == "text"
    await store.close()


async def test_a_database_of_a_newer_version_is_refused_and_not_touched(path: Path) -> None:
    await (await Store.open(path)).close()
    with Database(path) as db:
        row = {"migration_set": "atlasd", "name": "m900_of_tomorrow", "applied_at": "2030"}
        db.table("_sqlite_migrations").insert(row)
    content = path.read_bytes()
    with pytest.raises(StoreError, match="newer atlasd") as caught:
        await Store.open(path)
    assert "Update atlasd" in caught.value.hint
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", ["no database", "torn", "scrambled"])
async def test_a_damaged_database_is_refused_and_not_touched(path: Path, damage: str) -> None:
    store = await Store.open(path)
    for number in range(200):
        await store.add_completion(StoredCompletion(str(number), "text " * 50))
    await store.close()
    content = bytearray(path.read_bytes())
    if damage == "no database":
        content[:] = b"this is no database at all\n" * 300
    elif damage == "torn":
        del content[len(content) // 2 + 100 :]
    else:
        content[4096 * 5 : 4096 * 12] = os.urandom(4096 * 7)
    path.write_bytes(content)
    with pytest.raises(StoreError, match="is damaged") as caught:
        await Store.open(path)
    assert "Move it aside" in caught.value.hint
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == bytes(content)


async def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be opened"):
        await Store.open(tmp_path / "data" / "atlasd.db")


async def test_a_closed_store_says_so(path: Path) -> None:
    store = await Store.open(path)
    await store.close()
    with pytest.raises(StoreError, match="closed"):
        await store.fates()


async def test_one_bad_call_does_not_take_its_neighbours_along(store: Store) -> None:
    calls = [
        store.add_completion(StoredCompletion("a", "text a")),
        store.set_fate("a", "nonsense"),  # type: ignore[arg-type]
        store.add_completion(StoredCompletion("b", "text b")),
    ]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(r) for r in results] == [type(None), ValueError, type(None)]
    assert await store.fates() == {"pending": 2}


async def test_a_cancelled_call_does_no_harm(store: Store) -> None:
    tasks = [
        asyncio.ensure_future(store.add_completion(StoredCompletion(str(n), "x")))
        for n in range(50)
    ]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    stored = {row["id"] async for row in store.export() if row["table"] == "completions"}
    assert stored >= {str(n) for n in range(1, 50, 2)}


async def test_generations_rise_with_the_content_alone(store: Store) -> None:
    await store.put_files("/code", [file_row("a.py"), file_row("b.py")])
    await store.put_files("/code", [file_row("a.py", b"2", tokens=9)])
    await store.put_files("/code", [file_row("a.py", b"2", tokens=9)])
    found = await store.files("/code")
    assert {name: (row.generation, row.tokens) for name, row in found.items()} == {
        "a.py": (2, 9),
        "b.py": (1, 3),
    }
    await store.drop_files("/code", ["b.py", "unknown.py"])
    assert set(await store.files("/code")) == {"a.py"}
    assert await store.files("/elsewhere") == {}


async def test_learned_state_is_found_under_its_exact_key_only(store: Store) -> None:
    rows = [
        LearnedRow("confidence", "/code", "qwen2:aaaa", b"\0one"),
        LearnedRow("confidence", "/other", "qwen2:aaaa", b"two"),
        LearnedRow("confidence", None, "qwen2:aaaa", b"three"),
        LearnedRow("recycle", None, "qwen2:bbbb", b"four"),
    ]
    for row in rows:
        await store.save_learned(row)
    key = lambda row: (row.kind, row.repository or "")  # noqa: E731
    assert sorted(await store.learned("qwen2:aaaa"), key=key) == sorted(rows[:3], key=key)
    assert await store.learned("qwen2:bbbb") == rows[3:]
    assert await store.learned("qwen2") == []
    newer = LearnedRow("confidence", None, "qwen2:aaaa", b"newer")
    await store.save_learned(newer)
    found = await store.learned("qwen2:aaaa")
    assert [row for row in found if row.repository is None] == [newer]


async def test_costs_belong_to_machine_and_model(store: Store) -> None:
    assert await store.costs("m1", "model") is None
    await store.save_costs("m1", "model", b"costs")
    await store.save_costs("m2", "other model", b"others")
    assert await store.costs("m1", "model") == b"costs"
    assert await store.costs("m2", "model") is None
    assert await store.costs("m1", "other model") is None
    await store.save_costs("m1", "model", b"later")
    assert await store.costs("m1", "model") == b"later"
