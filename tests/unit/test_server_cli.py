"""The command line without a daemon: usage, places, what is pasted, and that all of it is in the
docs."""

from __future__ import annotations

import argparse
import importlib
import inspect
import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atlasd import cli
from atlasd.commands import bench, stop
from atlasd.commands.clients import CLIENTS, Place
from atlasd.daemon import GRACE_S
from atlasd.engine.supervision import Supervision
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
        (["stat"], 2, "Did you mean status?"),
        (["start", "--model", ""], 1, "--model is empty"),
        (["zzz"], 2, "there is no command 'zzz'"),
        (["status"], 3, "atlasd start"),
        (["why"], 3, "No daemon is running"),
        (["index", "/no/such"], 1, "is not a folder"),
        (["complete", "nowhere"], 1, "FILE:LINE:COL"),
        (["connect", "emacs-from-1999"], 1, "atlasd connect lsp"),
        (["connect", "vim"], 1, "Did you mean neovim or llama.vim?"),
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


@pytest.mark.parametrize("words", [["complete", "a.py:1"], ["index", "."]])
def test_a_working_folder_that_was_removed_is_named(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert cli.main(words) == 1
    assert "The folder you are in is gone." in capsys.readouterr().err


def test_a_benchmark_runs_where_the_user_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Paths are given from there; a file of that name there is not what is run."""
    source, here = tmp_path / "source" / "bench", tmp_path / "here"
    for folder in (source, here / "bench"):
        folder.mkdir(parents=True)
        (folder / "__init__.py").touch()
    where = 'import os\nif __name__ == "__main__":\n    print(os.getcwd())\n'
    (source / "where.py").write_text(where)
    (here / "bench" / "where.py").write_text("raise SystemExit(3)")
    monkeypatch.setattr(bench, "SOURCE", source)
    monkeypatch.chdir(here)
    assert cli.main(["bench", "where"]) == 0
    assert capfd.readouterr().out == f"{here}\n"


def test_a_reader_that_has_enough_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m atlasd.cli --help | head -1", shell=True, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""


def test_what_is_pasted_into_a_shell_survives_a_folder_with_a_space(tmp_path: Path) -> None:
    source = tmp_path / "my atlasd"
    (source / "editor-extensions" / "vscode").mkdir(parents=True)
    text = CLIENTS["vscode"].paste(Place("127.0.0.1", 9001, "T", "/run/s", "m", source))
    command = text[text.index("(cd ") + 1 : text.index("&&")]
    assert shlex.split(command) == ["cd", str(source / "editor-extensions" / "vscode")]


ASCII = {**os.environ, "PYTHONIOENCODING": "ascii"}


def test_a_terminal_that_cannot_show_a_character_is_no_error() -> None:
    done = subprocess.run([sys.executable, "-m", "atlasd.cli", "doctor"], capture_output=True,
                          text=True, check=False, env=ASCII)  # fmt: skip
    assert done.stderr == ""
    assert "? python" in done.stdout


def test_json_says_the_same_in_every_encoding() -> None:
    program = "from atlasd.commands.output import print_json; print_json('\\u00e9 \\U0001d5fc')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True,
                          env=ASCII)  # fmt: skip
    assert json.loads(done.stdout) == "é 𝗼"


def test_stop_kills_no_daemon_that_still_waits_for_its_engine_to_save() -> None:
    engine_s = inspect.signature(Supervision.stop).parameters["timeout"].default
    assert engine_s > 5, "a full index on a busy disk takes longer"
    assert GRACE_S + engine_s + 3 <= stop.PATIENCE_S  # for the store and the workspace


@pytest.mark.parametrize("name", CLIENTS)
def test_what_is_pasted_holds_the_address_and_the_token(name: str) -> None:
    place = Place("127.0.0.1", 9001, "TOKEN", "/run/s", "m", Path("/src"))
    text = CLIENTS[name].paste(place)
    if CLIENTS[name].http:
        assert "127.0.0.1:9001" in text
        assert "TOKEN" in text
    assert f"`{name}`" in (DOCS / "cli.md").read_text()


@pytest.mark.parametrize("name", ["neovim", "minuet", "llama.vim"])
def test_all_that_connect_prints_can_be_pasted(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The heading and the warning with it, into a file of the client's own language."""
    assert cli.main(["connect", name]) == 0
    said = capsys.readouterr().out
    assert "not running" in said
    sign = {"llama.vim": '"'}.get(name, "--")
    assert sum(line.startswith(f"{sign} ") for line in said.splitlines()) == 2
    assert not any(line.startswith("#") for line in said.splitlines())


def test_connect_prints_the_token_that_the_daemon_will_use(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert cli.main(["connect", "curl"]) == 0
    assert (tmp_path / "data" / "token").read_text().strip() in capsys.readouterr().out


@pytest.mark.parametrize("words", [["connect", "curl"], ["start"], ["stop"], ["models"]])
def test_a_folder_that_cannot_be_written_is_told_in_one_line(
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path / "file" / "home"))
    status = cli.main(words)
    _, err = capsys.readouterr()
    assert (status, "Not a directory" in err) == (1, True) or (status, err) == (0, "")
    assert "Traceback" not in err


def test_without_http_a_script_is_told_no_address(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["connect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["base_url"] == "http://127.0.0.1:8012/v1"
    monkeypatch.setenv("ATLASD_SERVER_PORT", "0")
    assert cli.main(["connect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["base_url"] is None
