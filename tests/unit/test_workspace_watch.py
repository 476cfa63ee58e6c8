"""Watching and indexing a real folder, judged by what a fresh look at it would give."""

# ruff: noqa: ASYNC221, ASYNC240 (nothing else waits for the loop of a test)

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from watchdog.observers.inotify_c import InotifyFD

from atlasd.engine.protocol import AddSegment, DropRepository, DropSegment
from atlasd.errors import RequestError
from atlasd.store.database import Store
from atlasd.workspace import task as task_module
from atlasd.workspace.delivery import IndexProgress, Segment
from atlasd.workspace.ignore import IgnoreRules
from atlasd.workspace.reading import read_bytes, readable_text
from atlasd.workspace.repository import Repository
from atlasd.workspace.scan import scan
from atlasd.workspace.workspace import Workspace


def tokenize(texts: list[str]) -> list[list[int]]:
    """A token per character, so that segments can be read."""
    return [[ord(character) for character in text] for text in texts]


class Sink:
    """Keeps segments as the engine does: by repository and name."""

    def __init__(self) -> None:
        self.segments: dict[tuple[str, str], str] = {}
        self.messages = 0
        self.languages: dict[str, str | None] = {}

    def send(self, message: Segment) -> None:
        self.messages += 1
        if isinstance(message, AddSegment):
            text = message.tokens.decode("utf-32-le")
            self.segments[message.repository, message.segment] = text
            self.languages[message.segment] = message.language
        elif isinstance(message, DropSegment):
            self.segments.pop((message.repository, message.segment), None)
        elif isinstance(message, DropRepository):
            gone = message.repository
            self.segments = {k: v for k, v in self.segments.items() if gone not in (None, k[0])}

    def of(self, root: Path) -> dict[str, str]:
        return {name: text for (owner, name), text in self.segments.items() if owner == str(root)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "code" / "app"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest_asyncio.fixture
async def workspace(tmp_path: Path, sink: Sink) -> AsyncIterator[Workspace]:
    opened = Workspace(send=sink.send, cache=tmp_path / "cache")
    opened.use_tokenizer(tokenize, "characters")
    yield opened
    await opened.stop()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("atlasd-index")]


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def expected(root: Path) -> dict[str, str]:
    """What a fresh look at the root gives."""
    texts = {}
    for found in scan(root, IgnoreRules(root)):
        data = read_bytes(root, found.path)
        text = None if data is None else readable_text(data)
        if text is not None:
            texts[found.path] = text
    return texts


async def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def settled(sink: Sink, root: Path, repository: Repository, seconds: float = 15.0) -> None:
    """Wait until nothing is to be done, and find what a fresh look finds."""
    deadline = time.monotonic() + seconds
    while True:
        messages = sink.messages
        await asyncio.sleep(0.1)
        if repository.state != "watching" or sink.messages != messages:
            assert time.monotonic() < deadline, "it goes on and on"
            continue
        wanted = expected(root)
        if sink.of(root) == wanted and repository.files == sorted(wanted):
            return
        if time.monotonic() > deadline:
            assert sink.of(root) == wanted
            assert repository.files == sorted(wanted)


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


def save_by_rename(path: Path, text: str) -> None:
    """As Vim and many others save."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    beside.replace(path)


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


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("files", [300, pytest.param(3000, marks=pytest.mark.slow)])
async def test_a_branch_switch_of_many_files_is_taken_in_one_go(
    workspace: Workspace, sink: Sink, root: Path, files: int
) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=n", "-c", "user.email=n@example.org", "-c", "gc.auto=0")
        subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)

    git("init", "-q", "-b", "one")
    for number in range(files):
        write(root, f"p{number % 40}/m{number}.py", f"one = {number}\n")
    git("add", ".")
    git("commit", "-qm", "one")
    git("checkout", "-qb", "two")
    for number in range(files):
        if number % 3 == 0:
            (root / f"p{number % 40}/m{number}.py").unlink()
        else:
            write(root, f"p{number % 40}/m{number}.py", f"two = {number}\n")
        if number % 10 == 0:
            write(root, f"q{number % 40}/n{number}.py", f"new = {number}\n")
    git("add", "-A", ".")
    git("commit", "-qm", "two")

    repository = await workspace.open(root, trusted=True)
    await settled(sink, root, repository, files / 10)
    assert len(repository.files) == files * 23 // 30
    before = sink.messages
    git("checkout", "-q", "one")
    await settled(sink, root, repository, files / 10)
    assert len(repository.files) == files
    # Each file once, or twice where the switch was still going on, not once per event.
    assert sink.messages - before < 2.2 * files
    assert repository.recent() == []  # nobody edited these
    git("checkout", "-q", "two")
    await settled(sink, root, repository, files / 10)
    assert repository.notice == ""


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


async def test_an_open_buffer_is_the_text_and_becomes_the_segment(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    write(root, "a.py", "".join(f"line_{n} = {n}\n" for n in range(50)))
    await workspace.index(root)
    [repository] = workspace.repositories
    edited = (root / "a.py").read_text().replace("line_20 = 20", "line_20 = 'new'")
    workspace.note_edit(root / "a.py", edited)
    await until(lambda: repository.text("a.py") == edited)
    await until(lambda: sink.of(root)["a.py"] == edited)
    [edit] = repository.recent()
    assert (edit.path, edit.line) == ("a.py", 17)
    assert edit.text.split("\n") == edited.split("\n")[17:24]
    before = sink.messages
    (root / "a.py").write_text(edited)  # saved as it is: nothing new
    await asyncio.sleep(0.4)
    assert sink.messages == before
    assert repository.text("a.py") == edited
    (root / "a.py").write_text("other = 1\n")  # changed behind the editor's back
    await until(lambda: repository.text("a.py") == "other = 1\n")


async def test_buffers_of_ignored_and_secret_files_are_not_kept(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    write(root, ".gitignore", "private/\n")
    write(root, "a.py", "x = 1\n")
    await workspace.index(root)
    [repository] = workspace.repositories
    for path in (".env", "private/b.py", "../elsewhere.py", "node_modules/c.js"):
        workspace.note_edit(root / path, "SECRET = 1\n")
    workspace.note_edit(root / "a.py", 'password = "hunter2xyz"\n')
    await until(lambda: "**********" in sink.of(root)["a.py"])
    assert "hunter2xyz" not in str(repository.recent())
    assert list(sink.of(root)) == ["a.py"]
    assert [edit.path for edit in repository.recent()] == ["a.py"]


async def test_a_file_changed_on_disk_alone_is_a_recent_edit(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    lines = [f"line_{n} = {n}" for n in range(60)]
    write(root, "a.py", "\n".join(lines))
    await workspace.index(root)
    [repository] = workspace.repositories
    assert repository.recent() == []
    lines[30:31] = ["inserted = 1", "inserted = 2"]
    save_by_rename(root / "a.py", "\n".join(lines))
    await until(lambda: len(repository.recent()) == 1)
    [edit] = repository.recent()
    assert (edit.line, edit.text.split("\n")) == (27, lines[27:35])


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


async def test_indexing_stands_still_while_requests_are_served(
    tmp_path: Path, sink: Sink, root: Path
) -> None:
    busy = threading.Event()
    asked: list[float] = []

    def is_busy() -> bool:
        if busy.is_set():
            asked.append(time.monotonic())
        return busy.is_set()

    steps: list[float] = []

    def slow(texts: list[str]) -> list[list[int]]:
        steps.append(time.monotonic())
        time.sleep(sum(map(len, texts)) / 1e6)  # a million characters a second
        return tokenize(texts)

    for number in range(150):
        write(root, f"m{number}.py", "value = compute(value)\n" * 300)
    workspace = Workspace(send=sink.send, busy=is_busy)
    workspace.use_tokenizer(slow, "slow")
    await workspace.open(root, trusted=True)
    pauses = []
    for _ in range(5):
        await asyncio.sleep(0.05)
        asked.clear()
        since = time.monotonic()
        busy.set()
        await until(lambda: bool(asked))
        pauses.append(asked[0] - since)
        steps.clear()
        await asyncio.sleep(0.05)
        assert not steps
        busy.clear()
    # The machine may be busy with other things; at its best moment it is quick.
    assert min(pauses) < 0.02
    await until(lambda: len(sink.of(root)) == 150)
    await workspace.stop()


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


async def test_paused_indexing_waits_and_then_goes_on(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    workspace.pause()
    write(root, "a.py", "x = 1\n")
    repository = await workspace.open(root, trusted=True)
    await asyncio.sleep(0.3)
    assert sink.messages == 0
    workspace.resume()
    await settled(sink, root, repository)


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


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_a_root_of_100000_files_is_taken_in_within_bounded_memory(
    sink: Sink, root: Path
) -> None:
    for folder in range(1000):
        (root / f"p{folder % 30}" / f"q{folder}").mkdir(parents=True)
        for number in range(100):
            name = f"p{folder % 30}/q{folder}/m{number}.py"
            (root / name).write_text(f"def name_{folder}_{number}(value):\n    return value\n")
    workspace = Workspace(send=lambda message: None)
    workspace.use_tokenizer(lambda texts: [[1] * (len(text) // 4) for text in texts], "quarters")
    before = psutil.Process().memory_info().rss
    done = await workspace.index(root)
    [repository] = workspace.repositories
    assert done.files == len(repository.files) == 100_000
    # A kilobyte a file: paths, line checksums, hashes of names.
    assert psutil.Process().memory_info().rss - before < 150 << 20
    [found] = repository.defining(["name_777_42"])
    assert found.path == "p27/q777/m42.py"
    assert repository.similar(["name_777_42", "value"])[0][0] == "p27/q777/m42.py"
    await workspace.stop()
