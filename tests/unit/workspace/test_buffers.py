"""Open buffers, saved or not, and what counts as an edit."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atlasd.workspace.workspace import Workspace
from tests.unit.workspace.judged import Sink, save_by_rename, until, write


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


async def test_what_was_never_saved_is_forgotten_when_its_buffer_is_closed(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    write(root, "a.py", "kept = 1\n")
    await workspace.index(root)
    [repository] = workspace.repositories
    for path in ("a.py", "never_there.py"):
        workspace.note_edit(root / path, "thrown_away = 2\n")
    await until(lambda: sink.of(root) == dict.fromkeys(["a.py", "never_there.py"],
                                                       "thrown_away = 2\n"))  # fmt: skip
    for path in ("a.py", "never_there.py"):
        workspace.note_edit(root / path, None)
    await until(lambda: sink.of(root) == {"a.py": "kept = 1\n"})
    assert (repository.text("a.py"), repository.text("never_there.py")) == ("kept = 1\n", None)
    assert "thrown_away" not in str(repository.recent())
    assert repository.files == ["a.py"]


async def test_closing_a_saved_buffer_leaves_its_edit_a_recent_one(
    workspace: Workspace, sink: Sink, root: Path
) -> None:
    write(root, "a.py", "x = 1\n")
    await workspace.index(root)
    [repository] = workspace.repositories
    workspace.note_edit(root / "a.py", "x = 22\n")
    await until(lambda: sink.of(root)["a.py"] == "x = 22\n")
    write(root, "a.py", "x = 22\n")
    workspace.note_edit(root / "a.py", None)
    await asyncio.sleep(0.4)
    assert [(edit.path, edit.text) for edit in repository.recent()] == [("a.py", "x = 22\n")]


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
