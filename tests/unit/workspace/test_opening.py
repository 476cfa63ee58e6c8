"""Opening roots: what is indexed, whose it is, and that closing ends it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from atlasd.errors import RequestError
from atlasd.workspace.delivery import IndexProgress
from atlasd.workspace.workspace import Workspace
from tests.unit.workspace.judged import Sink, settled, tokenize, until, write


async def test_opening_a_root_indexes_what_may_be_read(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    write(root, "main.py", "import lib\n")
    write(root, "lib/core.rs", "fn main() {}\n")
    write(root, ".env", "SECRET=1\n")
    write(root, "ignored.py", "x\n")
    write(root, ".gitignore", "ignored.py\n")
    write(root, "config.py", 'password = "hunter2xyz"\n')
    steps: list[IndexProgress] = []
    done = await workspace.index(root, steps.append)
    assert sink.of(root) == {
        "main.py": "import lib\n",
        "lib/core.rs": "fn main() {}\n",
        "config.py": 'password = "**********"\n',
    }
    assert sink.languages == {"main.py": "python", "lib/core.rs": "rust", "config.py": "python"}
    assert (done.files, done.total, done.done) == (3, 3, True)
    assert done.tokens == sum(map(len, sink.of(root).values()))
    assert steps[-1].done
    [repository] = workspace.repositories
    assert (repository.name, repository.state, repository.tokens) == (
        "app",
        "watching",
        done.tokens,
    )


async def test_what_is_told_at_the_end_is_what_was_taken_in(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    write(root, "main.py", "x = 1\n")
    (root / "binary.py").write_bytes(b"\0\1")
    (root / "other.py").write_bytes("x = 1\n".encode("utf-16"))
    for _ in range(2):
        done = await workspace.index(root)
        assert (done.files, len(workspace.repositories[0].files)) == (1, 1)


async def test_a_root_that_is_not_trusted_is_not_read(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    write(root, "main.py", "x = 1\n")
    repository = await workspace.open(root, trusted=False)
    workspace.note_edit(root / "main.py", "x = 2\n")
    await asyncio.sleep(0.5)
    assert (sink.messages, repository.files, repository.recent()) == (0, [], [])
    assert repository.text("main.py") is None
    with pytest.raises(RequestError, match="does not trust"):
        await workspace.index(root)
    trusted = await workspace.open(root, trusted=True)
    await settled(sink, root, trusted)
    await workspace.open(root, trusted=False)
    assert sink.of(root) == {}
    write(root, "other.py", "y = 1\n")
    await asyncio.sleep(0.3)
    assert sink.of(root) == {}


async def test_a_folder_that_is_not_there_is_refused(workspace: Workspace, root: Path) -> None:
    with pytest.raises(RequestError, match="no folder"):
        await workspace.open(root / "nowhere", trusted=True)


async def test_the_whole_machine_is_no_repository_but_may_be_distrusted(
    workspace: Workspace,
) -> None:
    with pytest.raises(RequestError, match="the whole machine"):
        await workspace.open("/", trusted=True)
    assert workspace.repositories == []
    await workspace.open("/", trusted=False)
    with pytest.raises(RequestError, match="the whole machine"):
        await workspace.open("/", trusted=True)
    found = workspace.repository_of("/etc/x.py")
    assert found is not None
    assert not found.trusted


async def test_roots_inside_roots_belong_to_the_innermost(
    workspace: Workspace, root: Path, tmp_path: Path
) -> None:
    inner = root / "inner"
    inner.mkdir()
    outer_repository = await workspace.open(root, trusted=True)
    inner_repository = await workspace.open(inner, trusted=False)
    link = tmp_path / "link"
    link.symlink_to(root)
    assert workspace.repository_of(root / "a.py") is outer_repository
    assert workspace.repository_of(str(inner / "x" / "b.py")) is inner_repository
    assert workspace.repository_of(link / "a.py") is outer_repository
    assert workspace.repository_of(tmp_path / "c.py") is None
    assert await workspace.open(link, trusted=True) is outer_repository
    await workspace.close(inner)
    assert workspace.repository_of(inner / "x.py") is outer_repository


async def test_closing_while_indexing_ends_it(sink: Sink, root: Path) -> None:
    def slow(texts: list[str]) -> list[list[int]]:
        time.sleep(0.01)
        return tokenize(texts)

    for number in range(200):
        write(root, f"m{number}.py", "value = compute(value)\n" * 100)
    workspace = Workspace(send=sink.send)
    workspace.use_tokenizer(slow, "slow")
    waiting = asyncio.create_task(workspace.index(root))
    await until(lambda: sink.messages > 0)
    started = time.monotonic()
    await workspace.stop()
    assert time.monotonic() - started < 3
    await asyncio.wait_for(waiting, 3)
    assert len(sink.of(root)) < 200
