"""``atlasd stop``: end the daemon and its engine, whatever state they are in."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import time

from atlasd.commands.connection import Connection
from atlasd.errors import AtlasdError, NotRunningError
from atlasd.listeners import Running
from atlasd.paths import Paths, is_locked, paths

PATIENCE_S = 15.0
LAST_PATIENCE_S = 5.0
"""After SIGKILL."""


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
    if not _asked(folders):
        # It holds the lock and does not answer: it is stuck.
        _signal(Running.read(folders), signal.SIGTERM)
    if not _ended(folders, PATIENCE_S):
        _signal(Running.read(folders), signal.SIGKILL)
        if not _ended(folders, LAST_PATIENCE_S):
            raise AtlasdError("The daemon does not end.", f"See {folders.log}")


def _asked(folders: Paths) -> bool:
    """Ask it to end, and one that is just starting until it listens; False if it does not answer,
    True also when it is gone."""
    deadline = time.monotonic() + PATIENCE_S
    while is_locked(folders):
        try:
            Connection(folders).call("POST", "/atlasd/v1/stop", {}, timeout=5)
        except NotRunningError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        except AtlasdError:
            return False
        else:
            return True
    return True


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
