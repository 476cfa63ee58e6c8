"""``atlasd pause``: no completion, no indexing, no model in memory, until ``atlasd resume``."""

from __future__ import annotations

import argparse

from atlasd.commands.connection import Connection


def parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="atlasd pause",
        description="Give the model's memory back and stay quiet until `atlasd resume`.",
    )


def run(options: argparse.Namespace) -> int:
    Connection().call("POST", "/atlasd/v1/pause", {}, timeout=30)
    print("Paused: no completions, no indexing, no model in memory. Go on with: atlasd resume")
    return 0
