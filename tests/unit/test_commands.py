"""Commands one by one: places in files, conversations, what is printed for people."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from atlasd_kernels.cpu import available, instruction_sets

from atlasd import __version__
from atlasd.commands import (
    bench,
    chat,
    check_daemon,
    check_files,
    checks,
    complete,
    data,
    models,
    output,
    start,
    status,
    top,
)
from atlasd.commands.connection import Connection
from atlasd.errors import AtlasdError, RequestError
from atlasd.listeners import Running
from atlasd.paths import paths

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("place", "offset"),
    [("f.py:1:1", 0), ("f.py:1", 5), ("f.py:2:3", 8), ("f.py:3:1", 11), ("f.py:3", 11)],
)
def test_a_place_in_a_file_is_found(tmp_path: Path, place: str, offset: int) -> None:
    # A form feed is no end of a line, for no editor.
    (tmp_path / "f.py").write_text("hé\flo\nlast\n")
    cursor = complete.locate(str(tmp_path / place))
    assert cursor.offset == offset
    assert cursor.prefix + cursor.suffix == "hé\flo\nlast\n"


def test_a_place_in_a_file_whose_name_has_a_line_feed_is_found(tmp_path: Path) -> None:
    (tmp_path / "new\nline.py").write_text("x\n")
    assert complete.locate(str(tmp_path / "new\nline.py:1")).offset == 1


@pytest.mark.parametrize(
    ("place", "says"),
    [("f.py:9:1", "lines 1 to 3"), ("f.py:1:99", "columns 1 to 6"), ("g.py:1:1", "no file"),
     ("f.py:x", "FILE:LINE:COL"), ("b.bin:1:1", "as text"), ("pipe:1", "is not a file"),
     (".:1", "is not a file"), ("/dev/zero:1", "is not a file")],
)  # fmt: skip
def test_a_place_that_is_none_is_refused(tmp_path: Path, place: str, says: str) -> None:
    (tmp_path / "f.py").write_text("héllo\nlast\n")
    (tmp_path / "b.bin").write_bytes(b"\xff\xfe\x00")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(RequestError, match=says):
        complete.locate(str(tmp_path / place))


def test_ghost_text_stands_where_the_cursor_is(tmp_path: Path) -> None:
    (tmp_path / "f.py").write_text("a\nf(x)\nb\n")
    cursor = complete.locate(str(tmp_path / "f.py:2:3"))
    item = {"text": "y, z)", "replace_right": 2}
    assert complete.shown(cursor, item) == "a\nf(y, z)\nb"


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
    assert "200 tokens/s in the last streams, without drafting 100 (2.00x)" in said
    assert "60%" in said
    assert "4.0 ▂▂▂" in said


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"memory": {"weights": 7 << 30, "graphs": 3 << 20, "neural": 2048, "adapter": 5}},
         "weights 7.0 GB, graphs 3.0 MB, neural 2.0 kB, adapter 5 bytes"),
        (None, "weights 2.0 kB"),
        ({"memory": {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}}, "d 4 bytes\n          e 5 bytes"),
    ],
)  # fmt: skip
def test_status_tells_every_share_of_the_memory(engine: dict[str, Any] | None, said: str) -> None:
    told = {
        "state": "ready", "version": "1", "pid": 1, "engine_pid": 2, "socket": "s", "uptime_s": 5,
        "http": {"port": 0}, "engine_silent_s": 6.0,
        "drafting": True, "error": "", "store": True, "repositories": [], "engine": engine,
        "model": {"name": "m", "memory": {"weights": 2048}},
        "served": {"requests": 0, "output_tokens": 0, "decode_s": 0.0, "drafted": {},
                   "accepted": {}},
    }  # fmt: skip
    assert status.describe(told).split("memory", 1)[1].split("drafter")[0].strip().endswith(said)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("qwen2.5-coder:7b", "Did you mean Qwen/Qwen2.5-Coder-7B? "),
        ("Qwen/Qwen2.5-Codr-0.5B", "Did you mean Qwen/Qwen2.5-Coder-0.5B? "),
        ("Mellum-4b-base", "Did you mean JetBrains/Mellum-4b-base? "),
        ("Qwen/Qwen2.5-Coder-0.5B", ""),
        ("bundled", ""),
        ("somebody/else-altogether", ""),
        ("./Qwen2.5-Coder-7B", ""),
    ],
)
def test_a_name_that_no_model_has_is_put_right(name: str, said: str) -> None:
    assert models.meant(name) == said


def test_models_that_cannot_be_served_say_why() -> None:
    assert models.unserved({"architectures": ["Qwen2ForCausalLM"]}) == ""
    assert "GemmaForCausalLM" in models.unserved({"architectures": ["GemmaForCausalLM"]})
    held = models.Memory(4 * 2**30, "a GPU")
    fits = {one["name"]: one["fits"] for one in models.known(held)}
    assert fits["Qwen/Qwen2.5-Coder-0.5B"]
    assert not fits["Qwen/Qwen2.5-Coder-32B"]


def test_stored_data_is_described() -> None:
    said = data.describe({
        "bytes": 2048, "completions": {},
        "learned": [{"kind": "confidence", "model": "k", "bytes": 3000, "saved": 1_800_014_400}],
        "repositories": [{"root": "/r", "name": "r", "files": 3, "tokens": 1200,
                          "completions": {"accepted": 2}, "learned": [
                              {"kind": "adapter", "model": "k", "bytes": 7, "saved": 43200}]}],
        "machines": [{"machine": "m", "model": "k", "threads": None, "bytes": 10}],
    })  # fmt: skip
    assert "2.0 kB in the database" in said
    assert "accepted 2" in said
    assert "adapter 7 bytes, saved 1970-01-01" in said
    assert "confidence  2.9 kB, saved 2027-01-15" in said
    assert "None" not in said


def test_a_file_for_the_chat_must_be_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    assert "```\ntext\n```" in chat._quoted(tmp_path / "a.txt")
    with pytest.raises(AtlasdError, match="No such file"):
        chat._quoted(tmp_path / "missing")
    (tmp_path / "b.bin").write_bytes(b"\xff")
    with pytest.raises(AtlasdError, match="not UTF-8"):
        chat._quoted(tmp_path / "b.bin")


def test_an_answer_that_stops_coming_is_told_in_one_line(tmp_path: Path) -> None:
    path = paths({"ATLASD_HOME": str(tmp_path)})
    path.create()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path.socket))
        listener.listen()

        def half() -> None:
            client, _ = listener.accept()
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
            time.sleep(0.3)
            client.close()

        answering = threading.Thread(target=half)
        answering.start()
        with pytest.raises(AtlasdError, match="does not answer"):
            Connection(path).call("GET", "/", timeout=0.1)
        answering.join()


def test_a_conversation_survives_an_answer_that_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    class Daemon:
        def call(self, *_: object, **__: object) -> dict[str, object]:
            return {"model": {"name": "m"}}

        def events(self, method: str, path: str, body: dict[str, object]) -> Iterator[object]:
            asked.append([one["content"] for one in body["messages"]])
            if len(asked) == 1:
                raise AtlasdError("The prompt has 9999 tokens.")
            yield {"choices": [{"delta": {"content": "yes"}}]}

    lines = iter(["too long", "short", "again"])
    monkeypatch.setattr(chat, "Connection", Daemon)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("builtins.input", lambda _: next(lines, None) or _end())
    assert chat.run(chat.parser().parse_args([])) == 0
    assert "9999 tokens" in capsys.readouterr().err
    assert asked == [["too long"], ["short"], ["short", "yes", "again"]]


def _end() -> str:
    raise EOFError


def test_drafters_are_told_in_words() -> None:
    known = {"drafted": 50.0, "accepted": 47.0}
    assert status._drafter(known) == "47 of 50 tokens accepted"
    assert status._drafter({"drafted": 0.0}) == "nothing drafted yet"


def test_only_what_can_be_run_is_a_benchmark() -> None:
    assert {"startup", "demo"} <= set(bench.benchmarks())
    assert not {"served", "shapes"} & set(bench.benchmarks())


def test_a_broken_setting_is_one_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path))
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").write_text("[server]\nprot = 1\n")
    found = [one for one in checks.run_all() if "prot" in one.message]
    assert [one.name for one in found] == ["settings"]


def test_doctor_says_which_folders_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Called good, they would fail at the first start."""
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("os.access", lambda path, mode: False)
    found = {one.name: one for one in check_files.own_folders(paths())}
    for name in ("config", "data", "cache", "state", "runtime"):
        assert found[f"{name} folder"].verdict == "bad"
        assert str(tmp_path) in found[f"{name} folder"].message


def test_doctor_moves_no_database_away_because_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path))
    paths().create()
    paths().database.write_text("no database")
    (found,) = check_files.database(paths())
    assert "mv " in found.mend
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    (found,) = check_files.database(paths())
    assert "disk is full" in found.mend
    assert "mv " not in found.mend


@pytest.mark.timeout(10)
def test_doctor_does_not_wait_for_a_database_that_is_a_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path))
    paths().create()
    os.mkfifo(paths().database)
    (found,) = check_files.database(paths())
    assert found.verdict == "bad"
    assert "is no file" in found.message


def test_a_daemon_that_cannot_start_on_a_full_disk_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own words were for a file on that disk."""
    folders = paths({"ATLASD_HOME": str(tmp_path)})
    folders.create()
    said = folders.state / "start.log"
    said.touch()
    assert "ended at once" in start._ended(said, folders).message
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=0))
    assert "disk is full" in start._ended(said, folders).message
    said.write_text("Port 8012 is used by another program.\n")
    assert start._ended(said, folders).message == "Port 8012 is used by another program."


@pytest.mark.parametrize("served", [__version__, "0.0.1"])
def test_doctor_says_that_the_daemon_is_of_another_version(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an update: it goes on as it was until it is started again."""
    status = {"state": "ready", "pid": 1, "model": {"name": "m"}, "error": None, "engine": {},
              "version": served}  # fmt: skip
    monkeypatch.setattr("atlasd.commands.connection.Connection.call", lambda *a, **b: status)
    found = {one.name: one for one in check_daemon.socket(paths({"ATLASD_HOME": str(tmp_path)}))}
    assert found["daemon"].verdict == "ok"
    assert ("version" in found) == (served != __version__)
    if "version" in found:
        assert "0.0.1" in found["version"].message
        assert "atlasd stop" in found["version"].mend


@pytest.mark.parametrize("broken", [False, True])
def test_doctor_says_whether_the_cpu_kernels_load(
    broken: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that is there but does not load, from another system say, is not called good."""
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path))
    usable, _ = available()
    if broken:
        (tmp_path / "_native.so").write_text("no library")
        monkeypatch.setenv("ATLASD_NATIVE_LIBRARY", str(tmp_path / "_native.so"))
    (found,) = [one for one in checks.run_all() if one.name == "native CPU kernels"]
    if broken or not usable:
        assert found.verdict == "note"
        assert "torch path" in found.message
        assert not broken or "does not load" in found.message
    else:
        assert found.verdict == "ok"
        assert instruction_sets()[0] in found.message


@pytest.mark.parametrize(
    ("given", "another"),
    [
        ({}, None),
        ({"server.port": 0}, None),
        ({"server.port": 0, "server.host": "127.0.0.1", "model.name": "tiny"}, None),
        ({"server.port": 8012}, "server.port"),
        ({"model.name": "large"}, "model.name"),
    ],
)
def test_starting_again_with_the_same_options_is_no_error(
    tmp_path: Path,
    given: dict[str, Any],
    another: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also where TCP is off, of which daemon.json says null."""
    folders = paths({"ATLASD_HOME": str(tmp_path)})
    folders.create()
    Running(7, "1", "tiny", None, None, str(folders.socket), 0.0).write(folders)
    options = {"model.name": None, "server.port": None, "server.host": None,
               "engine.drafting": None} | given  # fmt: skip
    if another is None:
        assert start._already(folders, options, wait=False) == 0
        assert "It is version 1 and this is" in capsys.readouterr().out
    else:
        with pytest.raises(AtlasdError, match=f"with another {another}"):
            start._already(folders, options, wait=False)
