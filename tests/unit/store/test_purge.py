"""Purging, retention and export: what goes, what stays, and that no byte is left."""

# ruff: noqa: ASYNC240 (nothing else waits for the loop of a test)

from __future__ import annotations

import base64
import sqlite3
from pathlib import Path

import pytest

from atlasd.errors import StoreError
from atlasd.store.database import Store
from atlasd.store.rows import LearnedRow, StoredCompletion
from tests.unit.store.rows import file_row


async def fill(store: Store, root: str, word: str) -> None:
    for number in range(40):
        text = f"def {word}_{number}(): return '{word}' * {number}\n" * 30
        row = StoredCompletion(f"{root}{number}", text, root, f"{word}.py", "python")
        await store.add_completion(row)
        await store.set_fate(row.id, "accepted")
    await store.put_files(root, [file_row(f"{word}/{n}.py") for n in range(300)])
    await store.save_learned(LearnedRow("confidence", root, "m", word.encode() * 500))


def bytes_on_disk(path: Path) -> bytes:
    return b"".join(p.read_bytes() for p in sorted(path.parent.iterdir()))


async def test_purging_a_repository_leaves_no_byte_of_its_text(store: Store, path: Path) -> None:
    await fill(store, "/code/first", "zebrafish")
    await fill(store, "/code/second", "quokka")
    assert b"zebrafish" in bytes_on_disk(path)
    removed = await store.purge("/code/first")
    assert removed == {"completions": 40, "files": 300, "learned": 1, "repositories": 1}
    left = bytes_on_disk(path)
    assert b"zebrafish" not in left
    assert b"/code/first" not in left
    assert b"quokka" in left
    assert len(await store.accepted("/code/second")) == 40
    assert await store.purge("/code/first") == {}


async def test_purging_everything_leaves_no_byte_of_any_text(store: Store, path: Path) -> None:
    await fill(store, "/code/first", "zebrafish")
    await store.save_costs("machine", "zebrafish-7b", b"zebrafish")
    removed = await store.purge()
    assert removed["completions"] == 40
    assert removed["machines"] == 1
    assert b"zebrafish" not in bytes_on_disk(path)
    assert [row async for row in store.export()] == []
    await store.add_completion(StoredCompletion("after", "it goes on"))
    assert await store.fates() == {"pending": 1}


async def test_retention_leaves_no_byte_of_what_it_removed(store: Store, path: Path) -> None:
    old = StoredCompletion("old", "zebrafish " * 100, created=1e9)
    await store.add_completion(old)
    await store.add_completion(StoredCompletion("new", "another day"))
    assert await store.retain(days=1) == 1
    await store.close()  # moves the write-ahead log into the database
    assert b"zebrafish" not in path.read_bytes()


async def test_a_purge_that_a_reader_holds_up_says_so(store: Store, path: Path) -> None:
    await fill(store, "/code/first", "zebrafish")
    reader = sqlite3.connect(path)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM completions").fetchone()
    await store.add_completion(StoredCompletion("later", "x"))
    store._writer.submit(lambda db: db.execute("PRAGMA busy_timeout = 100"), alone=True).result()
    with pytest.raises(StoreError, match="another program reads"):
        await store.purge()
    reader.close()
    await store.purge()
    assert b"zebrafish" not in bytes_on_disk(path)


async def test_export_gives_every_row_of_the_chosen_repository(store: Store) -> None:
    await fill(store, "/code/first", "zebrafish")
    await fill(store, "/code/second", "quokka")
    await store.save_costs("machine", "model", b"\0\1")
    everything = [row async for row in store.export()]
    counts: dict[object, int] = {}
    for row in everything:
        counts[row["table"]] = counts.get(row["table"], 0) + 1
    assert counts == {
        "repositories": 2,
        "files": 600,
        "completions": 80,
        "learned": 2,
        "machines": 1,
    }
    [machine] = [row for row in everything if row["table"] == "machines"]
    assert base64.b64decode(str(machine["costs"])) == b"\0\1"
    chosen = [row async for row in store.export("/code/first")]
    assert len(chosen) == 1 + 300 + 40 + 1
    assert "quokka" not in str(chosen)
    assert {row["repository"] for row in chosen if row["table"] == "files"} == {"/code/first"}


async def test_the_summary_says_what_is_stored(store: Store, path: Path) -> None:
    await fill(store, "/code/first", "zebrafish")
    await store.save_costs("machine", "model", b"12")
    summary = await store.summary()
    [repository] = summary["repositories"]  # type: ignore[misc]
    assert repository["root"] == "/code/first"  # type: ignore[has-type]
    assert (repository["files"], repository["tokens"]) == (300, 900)  # type: ignore[has-type]
    assert summary["completions"] == {"accepted": 40}
    assert summary["machines"] == [{"machine": "machine", "model": "model", "bytes": 2}]
    assert (await store.summary("/none"))["repositories"] == []


async def test_dropping_files_does_not_bring_a_purged_repository_back(store: Store) -> None:
    await fill(store, "/code/first", "zebrafish")
    await store.purge("/code/first")
    await store.drop_files("/code/first", ["zebrafish/0.py"])
    assert [row async for row in store.export()] == []
