"""``atlasd stop``: end the daemon and its engine, whatever state they are in."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time

from atlasd.commands.connection import Connection
from atlasd.errors import AtlasdError
from atlasd.listeners import Running, is_locked
from atlasd.paths import Paths, paths

PATIENCE_S = 15.0


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="atlasd stop", description="Stop the daemon. What it learned is saved first."
    )


def run(options: argparse.Namespace) -> int:
    """0 once nothing runs any more, also when nothing did."""
    folders = paths()
    if not is_locked(folders):
        print("No daemon is running.")
        return 0
    end(folders)
    print("atlasd has stopped.")
    return 0


def end(folders: Paths) -> None:
    """End the daemon and wait until it is gone. Raises AtlasdError if it does not go."""
    running = Running.read(folders)
    try:
        Connection(folders).call("POST", "/atlasd/v1/stop", {}, timeout=5)
    except AtlasdError:
        # It holds the lock but does not answer: still starting, or stuck.
        _signal(running, signal.SIGTERM)
    if not _ended(folders, PATIENCE_S):
        _signal(running, signal.SIGKILL)
        if not _ended(folders, 5.0):
            raise AtlasdError("The daemon does not end.", f"See {folders.log}")


def _signal(running: Running | None, number: signal.Signals) -> None:
    if running is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(running.pid, number)


def _ended(folders: Paths, patience: float) -> bool:
    deadline = time.monotonic() + patience
    while is_locked(folders):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
