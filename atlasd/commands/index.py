"""``atlasd index PATH``: read a folder now; an editor that opens it does the same by itself."""

from __future__ import annotations

import argparse
from pathlib import Path

from atlasd.commands.connection import Connection
from atlasd.commands.output import counted, print_json
from atlasd.commands.progress import bar
from atlasd.errors import AtlasdError, RequestError
from atlasd.paths import expanded


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd index",
        description="Read a folder (as trusted) so that its code is drafted from and used as"
        " context. Ignored and secret files are not read.",
    )
    made.add_argument("path", type=Path, metavar="PATH")
    made.add_argument("--json", action="store_true", help="the last line as JSON")
    return made


def run(options: argparse.Namespace) -> int:
    """0 once everything is indexed."""
    path = expanded(options.path).resolve()
    if not path.is_dir():
        raise RequestError(f"{path} is not a folder.")
    last = None
    with bar(f"reading {path.name}") as show:
        for step in Connection().lines("POST", "/atlasd/v1/index", {"path": str(path)}):
            last = step
            if not step.get("done"):
                show(
                    f"{step['files']}/{step['total']} files", step["files"] / max(1, step["total"])
                )
    if last is None or not last.get("done"):
        raise AtlasdError("Indexing ended early.", "See: atlasd status")
    if options.json:
        print_json(last)
    else:
        print(
            f"{path}: {counted(last['files'], 'file')}, {counted(last['tokens'], 'token')}"
            f" in {last['seconds']:.1f} s"
        )
    return 0
