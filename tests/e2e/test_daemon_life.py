"""The daemon as a user starts, stops and breaks it: real processes, one folder per test."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.running import Home, alive, wait_until
from tests.e2e.tiny_model import write_tiny_model

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny")


@pytest.fixture
def home(tmp_path: Path, model: Path) -> Home:
    return Home.make(tmp_path / "h", model)


def test_start_tells_what_to_do_next_and_stop_leaves_nothing_behind(home: Home) -> None:
    done = home.atlasd("start")
    try:
        assert done.returncode == 0, done
        assert done.stdout.startswith("Ready: tiny on ")
        assert f":{home.port}/v1" in done.stdout
        assert "atlasd connect" in done.stdout
        status = home.json("status")
        assert status["state"] == "ready"
        again = home.atlasd("start")
        assert (again.returncode, "already running (pid" in again.stdout) == (0, True)
        other = home.atlasd("start", "--port", "1")
        assert other.returncode == 1
        assert "already running" in other.stderr
        assert "atlasd stop && atlasd start --port 1\n" in other.stderr
    finally:
        home.stop()
    assert not alive(status["pid"])
    assert not alive(status["engine_pid"])
    assert sorted(file.name for file in home.socket.parent.iterdir()) == ["daemon.lock", "token"]
    assert home.atlasd("status").returncode == 3
    assert home.json("status") == {"state": "not running"}
    assert home.atlasd("stop").returncode == 0


@pytest.mark.parametrize("on_path", [True, False])
def test_start_says_how_the_command_comes_to_be_found(home: Home, on_path: bool) -> None:
    """Nobody has a .venv/bin on PATH, and all that is told from then on begins with atlasd."""
    folder = Path(sys.executable).parent
    path = "/usr/bin:/bin" + (f":{folder}" if on_path else "")
    try:
        said = home.atlasd("start", env={"PATH": path}).stdout
    finally:
        home.stop()
    assert (f'export PATH="{folder}:$PATH"' in said) is not on_path


def test_two_starts_at_once_make_one_daemon(home: Home) -> None:
    starts = [home.popen("start") for _ in range(3)]
    try:
        ends = [(start.communicate(timeout=90), start.returncode) for start in starts]
        assert [code for _, code in ends] == [0, 0, 0], ends
        said = "".join(out for (out, _), _ in ends)
        assert said.count("Ready: ") + said.count("already running") == 3
    finally:
        home.stop()


def test_a_shell_without_a_runtime_folder_finds_the_daemon_of_one_that_has_it(
    home: Home, tmp_path: Path
) -> None:
    """As cron, sudo and some of ssh and tmux are."""
    bare = {"ATLASD_HOME": "", "HOME": str(tmp_path), "XDG_STATE_HOME": "", "XDG_RUNTIME_DIR": "",
            "XDG_DATA_HOME": "", "XDG_CACHE_HOME": "", "XDG_CONFIG_HOME": ""}  # fmt: skip
    desktop = {**bare, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    (tmp_path / "run").mkdir(mode=0o700)
    for first, second in ((desktop, bare), (bare, desktop)):
        try:
            assert home.atlasd("start", env=first).returncode == 0
            again = home.atlasd("start", env=second)
            assert "already running (pid" in again.stdout, again
            status = json.loads(home.atlasd("status", "--json", env=second).stdout)
            assert status["state"] == "ready"
            assert status["socket"] in again.stdout
            file = tmp_path / "a.py"
            file.write_text("def f():\n    return ")
            assert home.atlasd("complete", f"{file}:2", env=second).returncode == 0
        finally:
            ended = home.atlasd("stop", env=second)
        assert ended.stdout == "atlasd has stopped.\n"
        assert not alive(status["pid"])
        assert home.atlasd("status", env=first).returncode == 3


def test_a_daemon_that_was_killed_leaves_no_obstacle_and_no_engine(home: Home) -> None:
    home.start()
    status = home.status()
    os.kill(status["pid"], signal.SIGKILL)
    wait_until(lambda: not alive(status["engine_pid"]))
    assert home.socket.exists()
    assert home.atlasd("status").returncode == 3
    assert home.atlasd("complete", f"{__file__}:1:1").returncode == 3
    token = home.token
    home.start()
    try:
        assert home.status()["pid"] != status["pid"]
        assert home.token == token
    finally:
        home.stop()


def test_a_stopped_daemon_is_named_and_goes_on_where_it_was(home: Home) -> None:
    home.start()
    daemon = home.pid
    os.kill(daemon, signal.SIGSTOP)
    try:
        again = home.atlasd("start", timeout=30)
        assert (again.returncode, "does not answer" in again.stderr) == (1, True)
    finally:
        os.kill(daemon, signal.SIGCONT)
    try:
        assert home.atlasd("start").returncode == 0
        assert home.pid == daemon
    finally:
        home.stop()


def test_a_stuck_engine_is_named_by_a_daemon_that_answers(home: Home) -> None:
    home.start()
    engine = home.status()["engine_pid"]
    os.kill(engine, signal.SIGSTOP)
    try:
        done = home.atlasd("status")
        assert done.returncode == 0, done
        assert f"pid {engine} does not answer" in done.stdout
        assert f"pid {engine} does not answer" in home.atlasd("doctor").stdout
        assert home.ask("GET", "/dashboard/data")["state"] == "ready"
    finally:
        os.kill(engine, signal.SIGCONT)
    try:
        assert "does not answer" not in home.atlasd("status").stdout
        os.kill(engine, signal.SIGSTOP)
    finally:
        home.stop()
    assert not alive(engine)


def test_a_daemon_whose_folders_are_removed_ends_and_spares_the_next_one(home: Home) -> None:
    home.start("--no-wait")
    first = home.pid
    shutil.rmtree(home.socket.parent)
    home.start("--no-wait", "--port", "0")
    try:
        second = home.pid
        assert second != first
        wait_until(lambda: not alive(first))
        assert home.status()["pid"] == second
    finally:
        home.stop()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_daemon_in_the_foreground(home: Home, number: signal.Signals) -> None:
    running = home.popen("start", "--foreground")
    wait_until(lambda: home.status().get("state") == "ready")
    engine = home.status()["engine_pid"]
    running.send_signal(number)
    _, said = running.communicate(timeout=30)
    assert running.returncode == 0, said
    assert "Traceback" not in said
    assert not alive(engine)
    assert not home.socket.exists()


def test_a_taken_port_is_named_when_asked_for_and_stepped_over_when_not(home: Home) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", home.port))
        taken.listen()
        done = home.atlasd("start")
        assert done.returncode == 1
        assert f"Port {home.port} is used by " in done.stderr
        assert "--port" in done.stderr
        assert "Traceback" not in done.stderr
    assert home.atlasd("status").returncode == 3


def test_the_default_port_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    from atlasd.listeners import listen_on_tcp

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        listeners = listen_on_tcp("127.0.0.1", port, exactly=False)
        assert listeners[0].getsockname()[1] > port
        for listener in listeners:
            listener.close()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("start", "--model", "/no/such/model"), "There is no model '/no/such/model'"),
        (("start", "--port", "99999"), "server.port = 99999 on the command line"),
        (("start", "--host", "0.0.0.0"), "server.token is off"),
        (("start", "--drafting", "maybe"), "invalid choice"),
    ],
)
def test_a_start_that_cannot_work_says_why_and_leaves_nothing(
    home: Home, words: tuple[str, ...], says: str
) -> None:
    done = home.atlasd(*words, env={"ATLASD_SERVER_TOKEN": "off"})
    assert done.returncode in (1, 2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert home.atlasd("status").returncode == 3


def test_a_wrong_setting_is_named_before_anything_starts(home: Home) -> None:
    (home.folder / "config").mkdir()
    (home.folder / "config" / "config.toml").write_text("[server]\nprot = 1\n")
    done = home.atlasd("start")
    assert done.returncode == 1
    assert "Unknown setting server.prot" in done.stderr
    assert "Did you mean server.port?" in done.stderr
    doctor = home.atlasd("doctor")
    assert doctor.returncode == 1
    assert "server.prot" in doctor.stdout


def test_a_damaged_database_does_not_stop_completions_and_is_named(home: Home) -> None:
    (home.folder / "data").mkdir()
    (home.folder / "data" / "atlasd.db").write_bytes(b"no database" * 1000)
    home.start()
    try:
        assert home.atlasd("chat", "--max-tokens", "4", "hi").returncode == 0
        shown = home.atlasd("data", "show")
        assert shown.returncode == 1
        assert "Traceback" not in shown.stderr
        assert "database" in home.atlasd("status").stdout
        assert home.atlasd("doctor").returncode == 1
    finally:
        home.stop()


def test_what_was_learned_and_accepted_survives_a_restart(home: Home) -> None:
    cursor = {"prefix": "def area(width, height):\n    return ", "max_tokens": 8, "trusted": True}
    home.start()
    try:
        [item] = home.ask("POST", "/atlasd/v1/complete", cursor)["items"]
        home.ask("POST", "/atlasd/v1/fate", {"id": item["id"], "fate": "accepted"})
        home.atlasd("chat", "--max-tokens", "200", "hi")
    finally:
        home.stop()
    with sqlite3.connect(home.folder / "data" / "atlasd.db") as database:
        kept = {
            table: database.execute(f"select * from {table}").fetchall()
            for table in ("machines", "learned", "completions")
        }
    database.close()
    assert all(kept.values())
    home.start("--drafting", "off")
    try:
        assert home.status()["drafting"] is False
        exported = home.atlasd("data", "export").stdout
        rows = [json.loads(line) for line in exported.splitlines()]
        assert [row["fate"] for row in rows if row["table"] == "completions"] == ["accepted"]
    finally:
        home.stop()


def test_ctrl_c_while_waiting_leaves_it_loading(home: Home) -> None:
    starting = home.popen("start", start_new_session=True)
    try:
        wait_until(lambda: home.status().get("state") in ("loading", "ready"))
        starting.send_signal(signal.SIGINT)
        said, _ = starting.communicate(timeout=30)
        assert starting.returncode in (0, 130)
        if starting.returncode == 130:
            assert "in the background" in said
        wait_until(lambda: home.status().get("state") == "ready")
    finally:
        home.stop()


def test_an_unwritable_home_is_one_line(tmp_path: Path, model: Path) -> None:
    (tmp_path / "file").write_text("")
    blocked = Home.make(tmp_path / "x", model)
    done = subprocess.run(
        [sys.executable, "-m", "atlasd.cli", "start"], capture_output=True, text=True, check=False,
        env={**blocked.environ, "ATLASD_HOME": str(tmp_path / "file" / "below")},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 2


def test_a_home_too_deep_for_a_socket_says_so(tmp_path: Path, model: Path) -> None:
    deep = Home.make(tmp_path / ("d" * 60) / ("e" * 60), model)
    done = deep.atlasd("start")
    assert done.returncode == 1
    assert "too long" in done.stderr
    assert "ATLASD_HOME" in done.stderr


def test_a_full_disk_is_told_in_one_line(home: Home) -> None:
    """A limit on file sizes stands in for a full disk: every write beyond it fails."""
    home.start()
    try:
        daemon = home.pid
        import resource

        resource.prlimit(daemon, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        done = home.atlasd("chat", "--max-tokens", "4", "hi")
        assert done.returncode == 0, done
        assert alive(daemon)
    finally:
        home.stop()


def test_many_requests_during_a_stop_end_cleanly(home: Home) -> None:
    home.start()
    try:
        asking = [home.popen("chat", "--max-tokens", "1500", "hi") for _ in range(3)]
        for one in asking:
            assert one.stdout is not None
            assert one.stdout.read(1), one.communicate()
        home.ask("POST", "/atlasd/v1/stop", {})
        ends = [one.communicate(timeout=60) for one in asking]
    finally:
        home.stop()
    # Some may have been at their end just then.
    assert {one.returncode for one in asking} <= {0, 1}
    assert not any("Traceback" in said for _, said in ends)
