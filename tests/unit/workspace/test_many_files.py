"""Branch switches and roots of very many files."""

from __future__ import annotations

import subprocess
from pathlib import Path

import psutil
import pytest

from atlasd.workspace.workspace import Workspace
from tests.unit.workspace.judged import Sink, settled, write


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
