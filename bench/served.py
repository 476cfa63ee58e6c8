"""A daemon of our own for a measurement: in a temporary home, gone afterwards."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from atlasd.commands.connection import Connection
from atlasd.errors import AtlasdError, NotRunningError
from atlasd.paths import Paths, paths


@dataclass
class Served:
    """A running daemon, and how long it took to come up."""

    folders: Paths
    connection: Connection
    process: subprocess.Popen[bytes]
    health_s: float
    ready_s: float

    def rss_mb(self) -> float:
        """Resident memory of the daemon itself, without the engine process, in MB."""
        return psutil.Process(self.process.pid).memory_info().rss / 1e6

    def status(self) -> dict[str, Any]:
        return self.connection.call("GET", "/atlasd/v1/status", timeout=30)

    def open(self, root: Path) -> None:
        """Open a repository and wait until it is indexed."""
        for line in self.connection.lines("POST", "/atlasd/v1/index", {"path": str(root)}):
            if line.get("done"):
                return

    def infill(self, prefix: str, suffix: str, **more: Any) -> dict[str, Any]:
        """A raw fill-in-the-middle: no type-through cache, no trimming."""
        body = {"input_prefix": prefix, "input_suffix": suffix} | more
        return self.connection.call("POST", "/infill", body, timeout=120)

    def drafting(self, on: bool) -> None:
        self.connection.call("POST", "/atlasd/v1/drafting", {"on": on}, timeout=30)


@contextmanager
def serve(*options: str, home: Path | None = None) -> Iterator[Served]:
    """Start ``atlasd start --foreground`` with these options; ends it afterwards."""
    with tempfile.TemporaryDirectory(prefix="atlasd-bench-") as temporary:
        place = home or Path(temporary)
        environ = os.environ | {"ATLASD_HOME": str(place)}
        folders = paths(environ)
        began = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "atlasd.cli", "start", "--foreground", "--port", "0", *options],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        connection = Connection(folders)
        try:
            health_s = _health(connection, process, began)
            _ready(connection)
            yield Served(folders, connection, process, health_s, time.perf_counter() - began)
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def _health(connection: Connection, process: subprocess.Popen[bytes], began: float) -> float:
    while process.poll() is None and time.perf_counter() - began < 60:
        try:
            connection.text("/health", timeout=5)
        except NotRunningError:
            time.sleep(0.01)
            continue
        except AtlasdError:
            pass  # 503 while the model loads is an answer, too
        return time.perf_counter() - began
    raise AtlasdError(f"The daemon did not come up (exit {process.poll()}).")


def _ready(connection: Connection) -> None:
    for event in connection.events("GET", "/atlasd/v1/progress"):
        if event.get("state") == "failed":
            raise AtlasdError(event.get("error") or "The model could not be loaded.")
        if event.get("state") == "ready":
            return
