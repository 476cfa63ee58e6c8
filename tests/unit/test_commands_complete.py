"""``atlasd complete`` against a served daemon: what a script can tell from it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from atlasd import cli
from tests.served import House


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path))
    file = tmp_path / "add.py"
    file.write_text("def add(x, y):\n    return \n")
    return f"{file}:2"


async def test_a_suggestion_and_none_are_both_answers(
    house: House, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    house.says("x + y\n")
    assert await asyncio.to_thread(cli.main, ["complete", place]) == 0
    assert "return x + y" in capsys.readouterr().out
    house.says("")
    house.says("")
    assert await asyncio.to_thread(cli.main, ["complete", place.replace(":2", ":1")]) == 0
    assert "Nothing to suggest here" in capsys.readouterr().out


async def test_a_byte_order_mark_is_no_column_and_no_text(
    house: House, place: str, tmp_path: Path
) -> None:
    (tmp_path / "add.py").write_text("x = 1\n", "utf-8-sig")
    house.says("0\n")
    assert await asyncio.to_thread(cli.main, ["complete", place.replace(":2", ":1:6")]) == 0
    assert "\ufeff" not in house.prompt(0)
    assert "x = 1" in house.prompt(0)


async def test_a_file_too_long_for_a_request_is_completed(
    house: House, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "add.py").write_text("x = 1\n" * 2_000_000 + "y = ")
    house.says("2\n")
    at = place.replace(":2", ":2000001")
    assert await asyncio.to_thread(cli.main, ["complete", at]) == 0
    assert "y = 2" in capsys.readouterr().out


async def test_what_is_no_text_is_told_to_be_none(
    house: House, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "b\udcff.py", tmp_path / "d\udcff"
    file.touch()
    folder.mkdir()
    for words in (
        ["chat", "hi \udcff"],
        ["complete", f"{file}:1"],
        ["index", str(folder)],
        ["why", "\udcff"],
        ["data", "show", "--repository", str(folder)],
        ["data", "purge", "--yes", "--repository", str(folder)],
    ):
        assert await asyncio.to_thread(cli.main, words) == 1
        _, err = capsys.readouterr()
        assert f"not text in UTF-8: {words[-1].removesuffix(':1')!r}." in err


@pytest.mark.parametrize("most", ["0", "-5"])
def test_no_tokens_are_refused(place: str, most: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["complete", place, "--max-tokens", most]) == 1
    assert "at least 1" in capsys.readouterr().err


async def test_paused_is_no_answer(
    house: House, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await house.daemon.pause()
    assert await asyncio.to_thread(cli.main, ["complete", place]) == 1
    out, err = capsys.readouterr()
    assert (out, "atlasd resume" in err) == ("", True)
    assert await asyncio.to_thread(cli.main, ["complete", "--json", place]) == 1
    assert json.loads(capsys.readouterr().out) == {"items": [], "paused": True}
