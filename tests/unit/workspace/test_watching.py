"""Watching a real folder, judged by what a fresh look at it would give."""

# ruff: noqa: ASYNC221 (nothing else waits for the loop of a test)

from __future__ import annotations

import asyncio
import contextlib
import errno
import random
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from watchdog.observers.inotify_c import InotifyFD

from atlasd.workspace import looking
from atlasd.workspace import task as task_module
from atlasd.workspace.workspace import Workspace
from tests.unit.workspace.judged import Sink, save_by_rename, settled, until, write


def save_with_backup(path: Path, text: str) -> None:
    """As Vim with ``backupcopy=no``: the old file moves away, a new one is written."""
    path.rename(path.with_name(f"{path.name}~"))
    path.write_text(text)
    path.with_name(f"{path.name}~").unlink()


def save_in_place(path: Path, text: str) -> None:
    path.write_text(text)


@pytest.mark.parametrize("save", [save_by_rename, save_with_backup, save_in_place])
async def test_every_way_of_saving_is_seen_soon(
    workspace: Workspace, sink: Sink, root: Path, save: Callable[[Path, str], None]
) -> None:
    write(root, "a.py", "x = 0\n")
    await workspace.index(root)
    times = []
    for number in range(1, 6):
        started = time.monotonic()
        save(root / "a.py", f"x = {number}\n")  # of the same size each time
        await until(lambda number=number: sink.of(root)["a.py"] == f"x = {number}\n")  # type: ignore[misc]
        times.append(time.monotonic() - started)
    assert min(times) < 0.5


async def test_files_and_folders_come_go_move_and_turn_into_each_other(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    write(root, "a.py", "a = 1\n")
    write(root, "pkg/b.py", "b = 1\n")
    write(root, "pkg/deep/c.py", "c = 1\n")
    repository = await workspace.open(root, trusted=True)
    await settled(sink, root, repository)

    (root / "a.py").unlink()
    write(root, "a.py/inside.py", "now a folder\n")
    await settled(sink, root, repository)
    shutil.rmtree(root / "a.py")
    write(root, "a.py", "a file again\n")
    await settled(sink, root, repository)

    (root / "pkg").rename(root / "package")
    await settled(sink, root, repository)
    write(root, "package/deep/c.py", "c = 2\n")
    write(root, "package/deep/deeper/d.py", "d = 1\n")
    await settled(sink, root, repository)
    (root / "package" / "deep").rename(root / "deep")
    write(root, "deep/deeper/d.py", "d = 2\n")
    await settled(sink, root, repository)

    outside = root.parent / "outside"
    (root / "deep").rename(outside)
    await settled(sink, root, repository)
    outside.rename(root / "back")
    write(root, "back/c.py", "c = 3\n")
    await settled(sink, root, repository)

    (root / "back" / "c.py").unlink()
    (root / "back" / "c.py").symlink_to(root.parent / "secret.py")
    write(root.parent, "secret.py", "secret = 1\n")
    await settled(sink, root, repository)
    assert "secret" not in str(sink.segments)


async def test_changed_ignore_files_take_files_out_and_bring_them_back(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    for name in ("a.py", "b.py", "sub/c.py", "sub/d.py"):
        write(root, name, f"{name} = 1\n")
    repository = await workspace.open(root, trusted=True)
    await settled(sink, root, repository)
    assert len(repository.files) == 4
    for path, text, left in [
        (".gitignore", "a.py\n", 3),
        ("sub/.ignore", "c.py\n", 2),
        (".atlasdignore", "sub/\n", 1),
        (".git/info/exclude", "b.py\n", 0),
        (".gitignore", "", 1),
        (".atlasdignore", "!b.py\n", 4 - 1),
    ]:
        write(root, path, text)
        await settled(sink, root, repository)
        assert len(repository.files) == left, path


async def test_random_changes_end_up_like_a_fresh_look(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    rng = random.Random(7)
    names = ["a.py", "b.py", "c.ts", "x", "y", "node_modules", ".gitignore"]
    repository = await workspace.open(root, trusted=True)

    def path() -> Path:
        return root.joinpath(*rng.choices(names[3:6], k=rng.randint(0, 2)), rng.choice(names))

    for _ in range(12):
        for _ in range(rng.randint(1, 25)):
            action, one, two = rng.randrange(6), path(), path()
            with contextlib.suppress(OSError):
                if action <= 1:
                    one.parent.mkdir(parents=True, exist_ok=True)
                    pattern = rng.choice(["a.py\n", "x/\n", "*.ts\n", "!b.py\n", ""])
                    one.write_text(pattern if one.name == ".gitignore" else str(rng.random()))
                elif action == 2:
                    one.unlink()
                elif action == 3:
                    shutil.rmtree(one)
                else:
                    one.rename(two)
            if rng.random() < 0.2:
                await asyncio.sleep(0.02)
        await settled(sink, root, repository)


async def test_used_up_watches_are_explained_and_made_up_for(
    workspace: Workspace, sink: Sink, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, added = InotifyFD.add_callback, []

    def limited(self: InotifyFD, path: bytes, *rest: object) -> int:
        if len(added) >= 2:
            raise OSError(errno.ENOSPC, "inotify watch limit reached")
        added.append(path)
        return real(self, path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(InotifyFD, "add_callback", limited)
    monkeypatch.setattr(task_module, "POLL_S", 0.2)
    monkeypatch.setattr("atlasd.workspace.looking.POLL_S", 0.2)
    for number in range(5):
        write(root, f"p{number}/a.py", "x = 1\n")
    repository = await workspace.open(root, trusted=True)
    await settled(sink, root, repository)
    assert "sysctl fs.inotify.max_user_watches=" in repository.notice
    write(root, "p4/a.py", "x = 22\n")
    write(root, "p5/new.py", "y = 1\n")
    (root / "p3" / "a.py").unlink()
    await settled(sink, root, repository)


async def test_no_inotify_instance_at_all_means_looking_again(
    workspace: Workspace, sink: Sink, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none() -> int:
        raise OSError(errno.EMFILE, "inotify instance limit reached")

    monkeypatch.setattr(InotifyFD, "_create_inotify_fd", staticmethod(none))
    monkeypatch.setattr(task_module, "POLL_S", 0.2)
    monkeypatch.setattr("atlasd.workspace.looking.POLL_S", 0.2)
    write(root, "a.py", "x = 1\n")
    repository = await workspace.open(root, trusted=True)
    await settled(sink, root, repository)
    assert "max_user_instances" in repository.notice
    write(root, "b.py", "y = 1\n")
    await settled(sink, root, repository)


async def test_lost_events_are_made_up_for_by_looking_again(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    write(root, "a.py", "x = 1\n")
    repository = await workspace.open(root, trusted=True)
    await settled(sink, root, repository)
    [(_, task)] = workspace._open.values()
    assert task is not None
    task.changed = lambda path: None  # type: ignore[method-assign]
    assert task.watch is not None
    task.watch._changed = task.changed  # type: ignore[attr-defined]
    write(root, "b.py", "y = 1\n")
    await asyncio.sleep(0.2)
    assert "b.py" not in sink.of(root)
    task.watch.on_queue_overflow()  # type: ignore[attr-defined]
    await settled(sink, root, repository)


def removed(root: Path) -> None:
    shutil.rmtree(root)


def moved(root: Path) -> None:
    root.rename(root.with_name("elsewhere"))


@pytest.mark.parametrize("take_away", [removed, moved])
async def test_a_root_that_disappears_is_dropped_and_read_again_when_it_is_back(
    workspace: Workspace,
    sink: Sink,
    root: Path,
    take_away: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(looking, "POLL_S", 0.2)
    for number in range(5):
        write(root, f"p/m{number}.py", f"value = {number}\n")
    await workspace.index(root)
    [repository] = workspace.repositories
    take_away(root)
    await until(lambda: sink.of(root) == {} and repository.files == [])
    assert "is gone" in repository.notice
    write(root, "new.py", "x = 1\n")
    await until(lambda: repository.files == ["new.py"] and repository.notice == "")
    write(root, "other.py", "x = 1\n")
    await settled(sink, root, repository)
    assert repository.files == ["new.py", "other.py"]
