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


async def test_paused_is_no_answer(
    house: House, place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await house.daemon.pause()
    assert await asyncio.to_thread(cli.main, ["complete", place]) == 1
    out, err = capsys.readouterr()
    assert (out, "atlasd resume" in err) == ("", True)
    assert await asyncio.to_thread(cli.main, ["complete", "--json", place]) == 1
    assert json.loads(capsys.readouterr().out) == {"items": [], "paused": True}
