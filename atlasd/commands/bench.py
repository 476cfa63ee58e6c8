"""``atlasd bench``: measure the running daemon, or run a benchmark of the source tree."""

from __future__ import annotations

import argparse
import os
import secrets
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from atlasd.commands.connection import Connection
from atlasd.commands.output import print_json, table
from atlasd.commands.progress import bar
from atlasd.errors import RequestError

SOURCE = Path(__file__).resolve().parents[2] / "bench"
TOKENS = 128

PROMPTS = (
    '''import json
from pathlib import Path


def read_settings(path: Path) -> dict[str, object]:
    """Read the settings of a project."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def write_settings(path: Path, settings: dict[str, object]) -> None:
    """Write the settings of a project."""
''',
    '''class Stack:
    """Last in, first out."""

    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
''',
    """import unittest

from shapes import area, perimeter


class TestShapes(unittest.TestCase):
    def test_area_of_a_square(self):
        self.assertEqual(area(2, 2), 4)

    def test_perimeter_of_a_square(self):
""",
)
"""Code with something to repeat, as code has."""


def parser() -> argparse.ArgumentParser:
    names = benchmarks()
    made = argparse.ArgumentParser(
        prog="atlasd bench",
        description="Without NAME: tokens per second of the running daemon, with drafting off and"
        " on. With NAME: a benchmark of the source tree.",
        epilog=f"Benchmarks here: {', '.join(names)}" if names else None,
    )
    made.add_argument("name", nargs="?", metavar="NAME")
    made.add_argument("arguments", nargs=argparse.REMAINDER, help="passed on to NAME")
    made.add_argument("--json", action="store_true", help="one JSON object")
    return made


def benchmarks() -> list[str]:
    """Benchmarks of the source tree, if atlasd runs from it."""
    modules = [path for path in SOURCE.glob("*.py") if not path.stem.startswith("_")]
    # What benchmarks share is no benchmark.
    files = [path.stem for path in modules if "__main__" in path.read_text(encoding="utf-8")]
    folders = [path.parent.name for path in SOURCE.glob("*/__main__.py")]
    return sorted([*files, *folders])


def run(options: argparse.Namespace) -> int:
    """The benchmark's own status; 0 for the quick measurement."""
    if options.name is None:
        return _quick(as_json=options.json)
    if options.name not in benchmarks():
        known = ", ".join(benchmarks()) or "none, outside the source tree"
        raise RequestError(f"There is no benchmark {options.name!r} here.", f"There are: {known}.")
    command = [sys.executable, "-m", f"bench.{options.name}", *options.arguments]
    # Where the user is, because paths are given from there; but no module is taken from there.
    found = os.pathsep.join(filter(None, (str(SOURCE.parent), os.environ.get("PYTHONPATH"))))
    environ = {**os.environ, "PYTHONPATH": found, "PYTHONSAFEPATH": "1"}
    return subprocess.run(command, env=environ, check=False).returncode


def _quick(*, as_json: bool) -> int:
    connection = Connection()
    drafting = connection.call("GET", "/atlasd/v1/status", timeout=10)["drafting"]
    measured: dict[str, dict[str, float]] = {}
    with bar("measuring") as show:
        try:
            # Drafting goes first: behind the plain runs it would draft from what they wrote.
            for index, on in enumerate((True, False)):
                connection.call("POST", "/atlasd/v1/drafting", {"on": on}, timeout=10)
                name = "drafting on" if on else "drafting off"
                runs = []
                for number, prompt in enumerate(PROMPTS):
                    show(name, (index + number / len(PROMPTS)) / 2)
                    runs.append(_measure(connection, prompt))
                measured[name] = {
                    key: statistics.median(run[key] for run in runs) for key in runs[0]
                }
        finally:
            connection.call("POST", "/atlasd/v1/drafting", {"on": drafting}, timeout=10)
    if as_json:
        print_json(measured)
    else:
        rows = [["", "tokens/s", "prompt tokens/s", "first token", "accepted"]]
        rows += [
            [
                name,
                f"{one['tokens_per_s']:.1f}",
                f"{one['prompt_per_s']:.0f}",
                f"{one['first_ms']:.0f} ms",
                f"{one['accepted']:.0%}",
            ]
            for name, one in measured.items()
        ]
        print(table(rows, indent=""))
    return 0


def _measure(connection: Connection, prompt: str) -> dict[str, float]:
    body: dict[str, Any] = {
        # A first line of its own, so that the prompt is read rather than found in a slot.
        "prompt": f"# {secrets.token_hex(4)}\n{prompt}",
        "max_tokens": TOKENS,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.perf_counter()
    first = 0.0
    timings: dict[str, Any] = {}
    for event in connection.events("POST", "/v1/completions", body):
        if not first and event["choices"] and event["choices"][0]["text"]:
            first = time.perf_counter() - started
        timings = event.get("timings") or timings
    drafted = timings["draft_n"]
    return {
        "tokens_per_s": timings["predicted_per_second"],
        "prompt_per_s": timings["prompt_per_second"],
        "first_ms": first * 1000,
        "accepted": timings["draft_n_accepted"] / drafted if drafted else 0.0,
    }
