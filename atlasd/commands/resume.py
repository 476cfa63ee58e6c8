"""``atlasd resume``: go on after a pause, or try again after a failure."""

from __future__ import annotations

import argparse

from atlasd.commands.connection import Connection
from atlasd.commands.progress import follow
from atlasd.errors import AtlasdError


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="atlasd resume",
        description="Go on after `atlasd pause`, or load the model again after it failed.",
    )


def run(options: argparse.Namespace) -> int:
    """0 when ready again."""
    connection = Connection()
    connection.call("POST", "/atlasd/v1/resume", {}, timeout=30)
    last = follow(connection.events("GET", "/atlasd/v1/progress"))
    if last.get("state") == "failed":
        raise AtlasdError(
            last.get("error") or "The model could not be loaded.", last.get("hint", "")
        )
    print("Ready.")
    return 0
