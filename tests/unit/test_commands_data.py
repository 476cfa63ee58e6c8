"""``atlasd data`` without a daemon: the files themselves are shown, exported and purged."""

from __future__ import annotations

import asyncio
import json
from io import StringIO
from pathlib import Path

import pytest

from atlasd import cli
from atlasd.paths import Paths, learned_folder_name, paths
from atlasd.store.database import Store
from atlasd.store.rows import StoredCompletion


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")
    return paths()


@pytest.fixture
def filled(folders: Paths) -> Paths:
    async def fill() -> None:
        store = await Store.open(folders.database)
        for root in ("/first", "/second"):
            await store.add_completion(StoredCompletion(root, f"text of {root}", root))
        await store.close()

    asyncio.run(fill())
    for root in ("/first", "/second"):
        learned = folders.cache / "drafting" / "t" / "adapter" / learned_folder_name(root)
        learned.mkdir(parents=True)
        (learned / "weights").touch()
    return folders


def test_nothing_is_shown_and_made_where_nothing_was_stored(
    folders: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "show"]) == 0
    assert cli.main(["data", "export"]) == 0
    assert cli.main(["data", "purge", "--all", "--yes"]) == 0
    assert not folders.database.exists()
    assert "0 bytes in" in capsys.readouterr().out


def test_what_is_stored_is_shown_and_exported(
    filled: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [one["root"] for one in shown["repositories"]] == ["/first", "/second"]
    assert shown["database"] == str(filled.database)
    assert shown["cache"][0]["files"] == 2
    assert cli.main(["data", "export", "--repository", "/first"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("text") for row in rows if row["table"] == "completions"] == ["text of /first"]


def test_a_repository_is_purged_and_then_everything(
    filled: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "purge", "--repository", "/first", "--yes"]) == 0
    assert b"text of /first" not in filled.database.read_bytes()
    assert b"text of /second" in filled.database.read_bytes()
    assert cli.main(["data", "purge", "--all", "--yes"]) == 0
    assert b"text of" not in filled.database.read_bytes()
    assert list(filled.cache.iterdir()) == []
    assert "files" in capsys.readouterr().out


def test_a_purge_of_what_is_not_known_says_so(
    filled: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that was mistyped must not look forgotten."""
    assert cli.main(["data", "purge", "--repository", "/frist", "--yes"]) == 0
    assert "nothing is known of /frist" in capsys.readouterr().out


@pytest.mark.parametrize("said", ["", "n\n", "maybe\n"])
def test_only_a_yes_removes_anything(
    filled: Paths, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ctrl-D, which says nothing, was a traceback."""
    stdin = StringIO(said)
    monkeypatch.setattr(stdin, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", stdin)
    assert cli.main(["data", "purge", "--all"]) == 1
    assert "Nothing was removed" in capsys.readouterr().out
    assert b"text of" in filled.database.read_bytes()


def test_an_export_of_what_is_not_known_says_so_beside_the_rows(
    filled: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "export", "--repository", "/frist"]) == 0
    out, err = capsys.readouterr()
    assert not out
    assert "Nothing is known of /frist" in err


def test_a_folder_whose_name_is_no_text_is_told_of_without_a_daemon(
    filled: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", "export", "--repository", "/f\udcff"]) == 1
    assert "not text in UTF-8: '/f\\udcff'" in capsys.readouterr().err
    assert cli.main(["start", "--model", "/f\udcff"]) == 1
    assert "not text in UTF-8: '/f\\udcff'" in capsys.readouterr().err
    for known in ("/frist", "/first"):
        assert cli.main(["data", "show", "--repository", known]) == 0
        said = capsys.readouterr().out
        assert (f"Nothing is known of {known}." in said) == (known == "/frist")
