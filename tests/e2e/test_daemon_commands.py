"""Every command of the command line against a whole daemon with a repository to work in."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.running import Home
from tests.e2e.tiny_model import write_tiny_model

pytestmark = pytest.mark.e2e

SOURCE = "def area(width, height):\n    return width * height\n\n\nprint(area(2, 3))\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("cli")
    made = Home.make(folder / "home", write_tiny_model(folder / "tiny"))
    repository = folder / "repository"
    (repository / ".git").mkdir(parents=True)
    (repository / "shapes.py").write_text(SOURCE)
    (repository / ".env").write_text("PASSWORD=hunter2\n")
    made.start()
    yield made
    made.stop()


@pytest.fixture
def repository(home: Home) -> Path:
    return home.folder.parent / "repository"


def test_a_folder_is_indexed_with_progress(home: Home, repository: Path) -> None:
    done = home.atlasd("index", str(repository))
    assert done.returncode == 0, done
    assert ": 1 file, " in done.stdout
    told = home.json("index", str(repository))
    assert (told["done"], told["files"]) == (True, 1)
    assert str(repository) in home.atlasd("status").stdout


def test_a_completion_is_shown_stored_explained_and_counted(home: Home, repository: Path) -> None:
    place = f"{repository / 'shapes.py'}:2:12"
    answer = home.json("complete", place, "--max-tokens", "8")
    assert len(answer["items"]) == 1
    item = answer["items"][0]
    shown = home.atlasd("complete", place, "--max-tokens", "8")
    assert item["text"] in shown.stdout
    assert "no model call" in shown.stdout
    why = home.json("why", item["id"])
    assert why["steps"]
    assert home.atlasd("why").returncode == 0
    assert home.atlasd("why", "no-such-id").returncode == 1


def test_several_choices_can_be_asked_for(home: Home, repository: Path) -> None:
    answer = home.json("complete", f"{repository / 'shapes.py'}:5:7", "--choices", "3",
                       "--max-tokens", "6")  # fmt: skip
    texts = [item["text"] for item in answer["items"]]
    assert len(texts) == len(set(texts))


def test_a_chat_answers_a_question_standard_input_and_a_file(home: Home, repository: Path) -> None:
    question = ("chat", "--max-tokens", "12", "hello", "there")
    first = home.atlasd(*question)
    assert first.returncode == 0, first
    assert len(first.stdout) > 5
    assert home.atlasd(*question).stdout == first.stdout
    assert (
        home.atlasd("chat", "--max-tokens", "12", "-", input="hello there").stdout == first.stdout
    )
    other = home.atlasd(*question, "--file", str(repository / "shapes.py"), "--stats")
    assert "tokens/s" in other.stderr
    assert home.atlasd("chat", "x" * 4000).returncode == 1


def test_a_conversation_runs_in_a_terminal(home: Home) -> None:
    leader, follower = pty.openpty()
    talk = subprocess.Popen(
        [sys.executable, "-m", "atlasd.cli", "chat", "--max-tokens", "6"], env=home.environ,
        stdin=follower, stdout=follower, stderr=follower, start_new_session=True, close_fds=True,
    )  # fmt: skip
    os.close(follower)
    seen = read_until(leader, b"> ")
    os.write(leader, b"hello\n")
    seen = read_until(leader, b"> ")
    assert seen.count(b"\n") >= 2
    os.write(leader, b"/new\n")
    assert b"A new conversation" in read_until(leader, b"> ")
    os.write(leader, b"\x04")
    assert talk.wait(20) == 0
    os.close(leader)


def read_until(leader: int, mark: bytes, patience: float = 30.0) -> bytes:
    """What a terminal shows, up to a prompt at its end."""
    seen, deadline = b"", time.monotonic() + patience
    while not seen.replace(b"\x1b[0m", b"").endswith(mark):
        assert time.monotonic() < deadline, seen
        if select.select([leader], [], [], 0.2)[0]:
            seen += os.read(leader, 4096)
    return seen


def test_drafting_is_switched_off_and_on(home: Home) -> None:
    assert home.atlasd("drafting", "off").returncode == 0
    assert home.status()["drafting"] is False
    assert home.atlasd("drafting", "on").returncode == 0
    assert home.status()["drafting"] is True


def test_the_daemon_without_its_engine_is_small_and_loads_no_torch(home: Home) -> None:
    assert home.atlasd("pause").returncode == 0
    status = home.status()
    assert (status["state"], status["engine_pid"]) == ("paused", None)
    facts = Path(f"/proc/{status['pid']}/status").read_text()
    resident = int(next(line for line in facts.splitlines() if "VmRSS" in line).split()[1])
    assert resident < 150 * 1024
    assert "torch" not in Path(f"/proc/{status['pid']}/maps").read_text()
    for words in (["complete", f"{__file__}:9:1"], ["chat", "hi"]):
        refused = home.atlasd(*words)
        assert refused.returncode == 1
        assert "atlasd resume" in refused.stderr
    assert home.atlasd("resume").returncode == 0
    assert home.status()["state"] == "ready"


def test_the_log_is_private_and_holds_no_prompt(home: Home) -> None:
    home.atlasd("chat", "--max-tokens", "4", "the secret word")
    log = home.folder / "state" / "atlasd.log"
    assert log.stat().st_mode & 0o077 == 0
    assert log.with_name("start.log").stat().st_mode & 0o077 == 0
    text = log.read_text()
    assert "secret" not in text
    assert home.token not in text
    assert "listens on" in text


def test_what_is_stored_is_shown_exported_and_purged(home: Home, repository: Path) -> None:
    shown = home.json("data", "show")
    assert any(one["root"] == str(repository) for one in shown["repositories"])
    assert home.atlasd("data", "show").returncode == 0
    exported = home.atlasd("data", "export", "--repository", str(repository))
    rows = [json.loads(line) for line in exported.stdout.splitlines()]
    assert rows
    assert all("table" in row for row in rows)
    assert "hunter2" not in exported.stdout
    assert home.atlasd("data", "purge", "--all").returncode == 1
    purged = home.atlasd("data", "purge", "--repository", str(repository), "--yes")
    assert purged.returncode == 0, purged
    assert purged.stdout.startswith("Removed ")


def test_connect_prints_what_works(home: Home) -> None:
    told = home.json("connect")
    assert told["base_url"] == f"http://127.0.0.1:{home.port}/v1"
    script = home.atlasd("connect", "openai").stdout
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True,
                         timeout=60, check=False)  # fmt: skip
    assert ran.returncode == 0, ran
    command = home.atlasd("connect", "curl").stdout
    ran = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60,
                         check=False)  # fmt: skip
    assert json.loads(ran.stdout)["object"] == "text_completion"


def test_doctor_models_and_top(home: Home) -> None:
    told = home.json("doctor")
    verdicts = {check["name"]: check["verdict"] for check in told["checks"]}
    assert verdicts["daemon"] == "ok"
    assert verdicts["database"] == "ok"
    assert verdicts["model"] == "ok"
    listed = home.json("models")
    assert listed["here"][0]["name"] == "bundled"
    assert home.atlasd("models").returncode == 0
    assert "model" in home.atlasd("top", "--once").stdout


def test_the_quick_bench_measures_both_ways_and_puts_drafting_back(home: Home) -> None:
    told = home.json("bench")
    assert set(told) == {"drafting off", "drafting on"}
    assert all(one["tokens_per_s"] > 0 for one in told.values())
    assert told["drafting off"]["accepted"] == 0
    assert home.json("status")["drafting"] is True
