"""What outlives a run: kept tokens, segments for a new engine, recorded files."""

# ruff: noqa: ASYNC240 (nothing else waits for the loop of a test)

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

from atlasd.store.database import Store
from atlasd.workspace.workspace import Workspace
from tests.unit.workspace.judged import Sink, expected, tokenize, until, write


async def test_a_restart_reads_the_kept_tokens_and_nothing_else(
    tmp_path: Path, sink: Sink, root: Path
) -> None:
    for number in range(30):
        write(root, f"m{number}.py", f"value_{number} = {number}\n")
        os.utime(root / f"m{number}.py", (1e9, 1e9))
    tokenized: list[str] = []

    def counting(texts: list[str]) -> list[list[int]]:
        tokenized.extend(texts)
        return tokenize(texts)

    async def run(key: str = "characters") -> dict[str, str]:
        kept = Sink()
        workspace = Workspace(send=kept.send, cache=tmp_path / "cache")
        workspace.use_tokenizer(counting, key)
        await workspace.index(root)
        [repository] = workspace.repositories
        assert [d.path for d in repository.defining(["value_7"])] == ["m7.py"]
        await workspace.stop()
        return kept.of(root)

    first = await run()
    assert len(tokenized) == 30
    tokenized.clear()
    assert await run() == first == expected(root)
    assert tokenized == []
    write(root, "m3.py", "value_3 = 'changed'\n")
    (root / "m4.py").unlink()
    assert await run() == expected(root)
    assert tokenized == ["value_3 = 'changed'\n"]
    tokenized.clear()
    assert await run("another tokenizer") == expected(root)
    assert len(tokenized) == 29
    for cache in (tmp_path / "cache" / "tokens").iterdir():
        assert cache.stat().st_mode & 0o777 == 0o600
        with cache.open("r+b") as file:  # a crash in the middle of a record
            file.truncate(cache.stat().st_size - 7)
    assert await run() == expected(root)


async def test_nothing_of_a_file_is_kept_once_it_is_ignored(
    tmp_path: Path, sink: Sink, root: Path
) -> None:
    write(root, "a.py", "x = 1\n")
    write(root, "notes/private.py", "zebrafish = 1\n")
    write(root, "notes/private.py", "zebrafish = 22\n")

    async def run() -> bytes:
        workspace = Workspace(send=sink.send, cache=tmp_path / "cache")
        workspace.use_tokenizer(tokenize, "characters")
        await workspace.index(root)
        await workspace.stop()
        return b"".join(path.read_bytes() for path in (tmp_path / "cache" / "tokens").iterdir())

    tokens = "zebrafish".encode("utf-32-le")
    assert tokens in await run()
    write(root, ".atlasdignore", "notes/\n")
    kept = await run()
    assert tokens not in kept
    assert "x = 1".encode("utf-32-le") in kept


async def test_an_engine_that_comes_back_gets_every_segment_again(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    for number in range(20):
        write(root, f"m{number}.py", f"value = {number}\n")
    await workspace.index(root)
    sink.segments.clear()
    workspace.engine_started()
    done = await workspace.index(root)
    assert sink.of(root) == expected(root)
    assert done.tokens == sum(map(len, sink.of(root).values()))


async def test_files_without_a_tokenizer_serve_as_context_and_are_tokenised_later(
    sink: Sink, root: Path
) -> None:
    write(root, "a.py", "def wanted():\n    pass\n")
    workspace = Workspace(send=sink.send)
    await workspace.index(root)
    [repository] = workspace.repositories
    assert [d.name for d in repository.defining(["wanted"])] == ["wanted"]
    assert (sink.messages, repository.tokens) == (0, 0)
    workspace.use_tokenizer(tokenize, "characters")
    await workspace.index(root)
    assert sink.of(root) == expected(root)
    assert repository.tokens == len("def wanted():\n    pass\n")
    await workspace.stop()


async def test_files_are_recorded_and_purged(tmp_path: Path, sink: Sink, root: Path) -> None:
    store = await Store.open(tmp_path / "data" / "atlasd.db")
    workspace = Workspace(send=sink.send, store=store, cache=tmp_path / "cache")
    workspace.use_tokenizer(tokenize, "characters")
    write(root, "a.py", "zebrafish = 1\n")
    write(root, "b.py", "y = 1\n")
    await workspace.index(root)

    async def recorded() -> dict[str, tuple[int, int]]:
        rows = await store.files(str(root))
        return {path: (row.generation, row.tokens) for path, row in rows.items()}

    assert await recorded() == {"a.py": (1, 14), "b.py": (1, 6)}
    write(root, "a.py", "zebrafish = 22\n")
    (root / "b.py").unlink()
    deadline = time.monotonic() + 10
    while await recorded() != {"a.py": (2, 15)}:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)

    await workspace.forget(root)
    await store.purge(str(root))
    assert sink.of(root) == {}
    write(root, "a.py", "zebrafish = 333\n")
    await until(lambda: sink.of(root) == {"a.py": "zebrafish = 333\n"})
    await workspace.stop()
    await store.close()
    left = b"".join(
        p.read_bytes() for p in tmp_path.rglob("*") if p.is_file() and root not in p.parents
    )
    assert b"zebrafish" not in left
    assert "zebrafish".encode("utf-32-le") not in left
