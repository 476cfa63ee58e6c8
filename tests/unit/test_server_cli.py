"""The command line without a daemon: usage, places, what is pasted, and that all of it is in the
docs."""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from atlasd import cli
from atlasd.commands import chat, complete, data, models, output, status, top
from atlasd.commands.clients import CLIENTS, Place
from atlasd.errors import AtlasdError, RequestError
from atlasd.server.app import PUBLIC, SOCKET_ONLY, _found

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path))
    monkeypatch.setenv("NO_COLOR", "1")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_and_stands_in_the_docs_with_all_its_options(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    module = importlib.import_module(f"atlasd.commands.{name}")
    parser: argparse.ArgumentParser = module.parser()
    assert parser.prog == f"atlasd {name}"
    assert parser.description
    text = (DOCS / "cli.md").read_text()
    (row,) = [line for line in text.splitlines() if line.startswith(f"| `atlasd {name}")
              or f"/ `atlasd {name}`" in line] or [""] if name != "data" else [text]  # fmt: skip
    assert row, f"docs/cli.md lacks atlasd {name}"
    for option in _options(parser) - {"--help"}:
        assert option in row, f"docs/cli.md lacks {option} of atlasd {name}"
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    assert name in capsys.readouterr().out


def _options(parser: argparse.ArgumentParser) -> set[str]:
    """Every long option, those of subcommands included."""
    found: set[str] = set()
    for action in parser._actions:
        found |= {option for option in action.option_strings if option.startswith("--")}
        if isinstance(action, argparse._SubParsersAction):
            found = found.union(*map(_options, action.choices.values()))
    return found


@pytest.mark.parametrize(("method", "path"), [one[:2] for one in (*PUBLIC, *SOCKET_ONLY)])
def test_every_path_that_is_served_stands_in_the_docs(method: str, path: str) -> None:
    name = "internal-api.md" if path.startswith("/atlasd/") else "api.md"
    text = (DOCS / name).read_text()
    known = path.replace(":.+", "")
    if known == "/atlasd/v1/resume":
        known = "`/resume`"
    assert known in text
    assert method in text


def test_every_handler_that_is_named_exists() -> None:
    for _, _, name in (*PUBLIC, *SOCKET_ONLY):
        assert callable(_found(name))


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ([], 2, "usage: atlasd COMMAND"),
        (["--help"], 0, "start the daemon"),
        (["--version"], 0, "atlasd 0."),
        (["strat"], 2, "Did you mean start?"),
        (["zzz"], 2, "there is no command 'zzz'"),
        (["status"], 3, "atlasd start"),
        (["why"], 3, "No daemon is running"),
        (["index", "/no/such"], 1, "is not a folder"),
        (["complete", "nowhere"], 1, "FILE:LINE:COL"),
        (["connect", "emacs-from-1999"], 1, "Known: neovim"),
        (["data", "purge"], 1, "--repository FOLDER, or --all"),
        (["data", "purge", "--all"], 1, "--yes"),
        (["bench", "no-such"], 1, "There is no benchmark"),
        (["stop"], 0, "No daemon is running."),
    ],
)
def test_exit_statuses(
    words: list[str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words) == status
    out, err = capsys.readouterr()
    assert says in out + err
    assert "Traceback" not in err


def test_the_version_comes_at_once() -> None:
    fastest = 9.0
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "atlasd.cli", "--version"], check=True,
                       capture_output=True)  # fmt: skip
        fastest = min(fastest, time.perf_counter() - started)
    bare = time.perf_counter()
    subprocess.run([sys.executable, "-c", "pass"], check=True)
    assert fastest < 0.15 + (time.perf_counter() - bare)


def test_a_reader_that_has_enough_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m atlasd.cli --help | head -1", shell=True, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("place", "offset"), [("f.py:1:1", 0), ("f.py:1", 5), ("f.py:2:3", 8), ("f.py:3:1", 11)]
)
def test_a_place_in_a_file_is_found(tmp_path: Path, place: str, offset: int) -> None:
    (tmp_path / "f.py").write_text("héllo\nlast\n")
    cursor = complete.locate(str(tmp_path / place))
    assert cursor.offset == offset
    assert cursor.prefix + cursor.suffix == "héllo\nlast\n"


@pytest.mark.parametrize(
    ("place", "says"),
    [("f.py:9:1", "lines 1 to 3"), ("f.py:1:99", "columns 1 to 6"), ("g.py:1:1", "no file"),
     ("f.py:x", "FILE:LINE:COL"), ("b.bin:1:1", "as text")],
)  # fmt: skip
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str, says: str) -> None:
    (tmp_path / "f.py").write_text("héllo\nlast\n")
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RequestError, match=says):
        complete.locate(str(tmp_path / place))


def test_ghost_text_stands_where_the_cursor_is(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("a\nf(x)\nb\n")
    cursor = complete.locate(str(tmp_path / "f.py:2:3"))
    item = {"text": "y, z)", "replace_right": 2}
    assert complete.shown(cursor, item) == "a\nf(y, z)\nb"


@pytest.mark.parametrize("name", CLIENTS)
def test_what_is_pasted_holds_the_address_and_the_token(name: str) -> None:
    place = Place("127.0.0.1", 9001, "TOKEN", "/run/s", "m", Path("/src"))
    text = CLIENTS[name].paste(place)
    if CLIENTS[name].http:
        assert "127.0.0.1:9001" in text
        assert "TOKEN" in text
    assert f"`{name}`" in (DOCS / "cli.md").read_text()


def test_connect_prints_the_token_that_the_daemon_will_use(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["connect", "curl"]) == 0
    assert (tmp_path / "data" / "token").read_text().strip() in capsys.readouterr().out


def test_numbers_for_people() -> None:
    assert [output.count(n) for n in (7, 1234, 234_900, 5_000_000)] == [
        "7", "1,234", "234.9k", "5.0M"]  # fmt: skip
    assert [output.size(n) for n in (5, 2048, 3 << 20, 7 << 30)] == [
        "5 bytes", "2.0 kB", "3.0 MB", "7.0 GB"]  # fmt: skip
    assert [output.duration(s) for s in (5, 600, 7300)] == ["5 s", "10 min", "2 h 1 min"]
    assert top.spark([0, 1, 2]) == " ▄█"
    assert top.spark([]) == ""
    assert top.spark([0.5, 2.0], 1.0) == "▄█"


def test_top_shows_what_the_dashboard_draws() -> None:
    from rich.console import Console

    points = [{"accepted": 0.5, "confidence": 0.6, "lookahead": 4.0}] * 3
    status = {
        "version": "1", "model": {"name": "m"}, "state": "ready", "uptime_s": 5, "drafting": True,
        "served": {"output_tokens": 9, "prompt_tokens": 9, "cached_tokens": 1, "decode_s": 1.0,
                   "drafted": {"positions": 4}, "accepted": {"positions": 2}},
        "engine": {"streams": 1, "queued": 0, "memory": {"weights": 2048}},
        "repositories": [{"root": "/r", "files": 2, "tokens": 3, "state": "watching"}],
        "drawn": {"speed": {"decoding": 200.0, "plain": 100.0},
                  "repositories": [{"root": "/r", "points": points}]},
    }  # fmt: skip
    console = Console(width=120, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(top.view(status, [10.0]))
        said = console.export_text()
    assert "200 tokens/s in the last streams, without drafting 100 tokens/s (2.00x)" in said
    assert "60%" in said
    assert "4.0 ▂▂▂" in said


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"memory": {"weights": 7 << 30, "graphs": 3 << 20, "neural": 2048, "adapter": 5}},
         "weights 7.0 GB, graphs 3.0 MB, neural 2.0 kB, adapter 5 bytes"),
        (None, "weights 2.0 kB"),
    ],
)  # fmt: skip
def test_status_tells_every_share_of_the_memory(engine: dict[str, Any] | None, said: str) -> None:
    told = {
        "state": "ready", "version": "1", "pid": 1, "socket": "s", "uptime_s": 5,
        "http": {"port": 0},
        "drafting": True, "error": "", "store": True, "repositories": [], "engine": engine,
        "model": {"name": "m", "memory": {"weights": 2048}},
        "served": {"requests": 0, "output_tokens": 0, "decode_s": 0.0, "drafted": {},
                   "accepted": {}},
    }  # fmt: skip
    line = next(line for line in status.describe(told).splitlines() if "memory" in line)
    assert line.endswith(said)


def test_models_that_cannot_be_served_say_why() -> None:
    assert models.unserved({"architectures": ["Qwen2ForCausalLM"]}) == ""
    assert "GemmaForCausalLM" in models.unserved({"architectures": ["GemmaForCausalLM"]})
    held = models.Memory(4 * 2**30, "a GPU")
    fits = {one["name"]: one["fits"] for one in models.known(held)}
    assert fits["Qwen/Qwen2.5-Coder-0.5B"]
    assert not fits["Qwen/Qwen2.5-Coder-32B"]


def test_stored_data_is_described() -> None:
    said = data.describe({
        "bytes": 2048, "completions": {}, "learned": [],
        "repositories": [{"root": "/r", "name": "r", "files": 3, "tokens": 1200,
                          "completions": {"accepted": 2}, "learned": []}],
        "machines": [{"machine": "m", "model": "k", "threads": None, "bytes": 10}],
    })  # fmt: skip
    assert "2.0 kB in the database" in said
    assert "accepted 2" in said
    assert "None" not in said


def test_a_file_for_the_chat_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert "```\ntext\n```" in chat._quoted(tmp_path / "a.txt")
    with pytest.raises(AtlasdError, match="as text"):
        chat._quoted(tmp_path / "missing")
