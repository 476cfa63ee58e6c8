"""The lock that makes a daemon the only one, ending whoever holds it, who may read its files."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from atlasd.commands import stop
from atlasd.errors import AtlasdError
from atlasd.listeners import AlreadyRunning, Lock, Running
from atlasd.paths import Paths, is_locked
from atlasd.run import OPEN_FILES, allow_open_files


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process that was given the number of a daemon which was killed."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_one_lock_at_a_time_and_it_says_who_has_it(folders: Paths) -> None:
    assert not is_locked(folders)
    lock = Lock(folders)
    Running(7, "1", "tiny", None, None, "socket", 0.0).write(folders)
    with pytest.raises(AlreadyRunning, match="pid 7, tiny"):
        Lock(folders)
    assert is_locked(folders)
    lock.release()
    assert not is_locked(folders)


def test_who_only_asks_for_the_lock_keeps_no_daemon_from_starting(folders: Paths) -> None:
    with open(folders.runtime / "daemon.lock", "w") as asking:
        fcntl.flock(asking, fcntl.LOCK_SH)
        threading.Timer(0.02, lambda: fcntl.flock(asking, fcntl.LOCK_UN)).start()
        Lock(folders).release()


def test_what_a_killed_daemon_said_of_itself_is_not_believed_of_the_next(
    folders: Paths, bystander: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop, "PATIENCE_S", 0.1)
    monkeypatch.setattr(stop, "LAST_PATIENCE_S", 0.1)
    Running(bystander.pid, "1", "tiny", None, None, "socket", 0.0).write(folders)
    lock = Lock(folders)  # a daemon that starts and does not listen yet
    with pytest.raises(AtlasdError, match="does not end"):
        stop.end(folders)
    lock.release()
    assert bystander.poll() is None


def test_a_daemon_that_does_not_listen_yet_is_asked_until_it_does(
    folders: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = Lock(folders)
    asked = []

    class Connection:
        def __init__(self, folders: Paths) -> None:
            pass

        def call(self, method: str, path: str, body: object, timeout: float) -> None:
            asked.append(json.dumps([method, path]))
            if len(asked) < 3:
                raise stop.NotRunningError("No daemon is running.")
            lock.release()

    monkeypatch.setattr(stop, "Connection", Connection)
    began = time.monotonic()
    stop.end(folders)
    assert len(asked) == 3
    assert time.monotonic() - began < 5


WRITES = """
import logging
from atlasd import run

async def write(config, folders):
    (folders.state / "new").touch()
    logging.getLogger().handlers[0].doRollover()

run._run = write
run.serve({}, foreground=False)
"""


def test_whatever_a_daemon_writes_is_its_users_alone(folders: Paths) -> None:
    """A log that was rotated, say; also where the folder was there before and is open to all."""
    environ = {**os.environ, "ATLASD_HOME": str(folders.state.parent)}
    subprocess.run([sys.executable, "-c", WRITES], check=True, env=environ, umask=0o022)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in folders.state.iterdir()}
    assert modes == {"new": 0o600, "atlasd.log": 0o600, "atlasd.log.1": 0o600}


def test_a_daemon_may_have_more_connections_than_systems_allow_at_first() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if OPEN_FILES >= hard != resource.RLIM_INFINITY:
        pytest.skip("this system does not allow more")
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        allow_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES + 1, hard))
        allow_open_files()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (OPEN_FILES + 1, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
