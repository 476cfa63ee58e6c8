"""A whole daemon in processes of its own, as a user has it, in a folder of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlasd.commands.connection import Connection
from atlasd.errors import AtlasdError
from atlasd.paths import paths
from tests.served import free_port


@dataclass
class Home:
    """One ``ATLASD_HOME`` and the command line in it."""

    folder: Path
    model: Path
    port: int

    @classmethod
    def make(cls, folder: Path, model: Path) -> Home:
        folder.mkdir(parents=True, exist_ok=True)
        return cls(folder, model, free_port())

    @property
    def environ(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ATLASD_")}
        return {**kept, "ATLASD_HOME": str(self.folder), "ATLASD_SERVER_PORT": str(self.port),
                "ATLASD_MODEL_NAME": str(self.model)}  # fmt: skip

    @property
    def token(self) -> str:
        return (self.folder / "run" / "token").read_text().strip()

    @property
    def socket(self) -> Path:
        return self.folder / "run" / "atlasd.sock"

    @property
    def pid(self) -> int:
        pid: int = json.loads((self.folder / "run" / "daemon.json").read_text())["pid"]
        return pid

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "atlasd.cli", *words],
            env={**self.environ, **options.pop("env", {})},
            stdin=options.pop("stdin", subprocess.DEVNULL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def atlasd(self, *words: str, input: str | None = None, env: dict[str, str] | None = None,
               timeout: float = 90) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Run a command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "atlasd.cli", *words],
            env={**self.environ, **(env or {})},
            input=input if input is not None else "",
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def json(self, *words: str) -> Any:
        """What a command prints with ``--json``."""
        done = self.atlasd(*words, "--json")
        assert done.stdout.count("\n") == 1, done
        return json.loads(done.stdout)

    def ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """What the daemon answers on its socket; at once, where a command takes a process."""
        folders = paths({"ATLASD_HOME": str(self.folder)})
        return Connection(folders).call(method, path, body, timeout=30)

    def status(self) -> dict[str, Any]:
        """What ``atlasd status --json`` prints."""
        try:
            return self.ask("GET", "/atlasd/v1/status")
        except AtlasdError:
            return {"state": "not running"}

    def start(self, *words: str) -> None:
        done = self.atlasd("start", *words)
        assert done.returncode == 0, done

    def stop(self) -> None:
        done = self.atlasd("stop")
        assert done.returncode == 0, done


def alive(pid: int) -> bool:
    """Whether a process runs (one that ended but was not waited for does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(true: Any, patience: float = 30.0) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


__all__ = ["Home", "alive", "signal", "wait_until"]
