"""``atlasd data show|export|purge``: what is stored, taken along, removed."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from atlasd.commands.connection import Connection
from atlasd.commands.output import count, counted, print_json, size, styled, table
from atlasd.errors import AtlasdError
from atlasd.paths import expanded, is_locked, paths


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd data",
        description="What atlasd stores: look at it, take it along, remove it. Works without a"
        " daemon, too.",
    )
    actions = made.add_subparsers(dest="action", required=True, metavar="show|export|purge")
    show = actions.add_parser("show", help="per repository: files, tokens, completions, bytes")
    show.add_argument("--json", action="store_true", help="one JSON object")
    export = actions.add_parser("export", help="every row as a line of JSON, to standard output")
    purge = actions.add_parser("purge", help="remove it for good")
    purge.add_argument("--all", action="store_true", help="everything, of every repository")
    purge.add_argument("--yes", action="store_true", help="do not ask")
    for action in (show, export, purge):
        action.add_argument("--repository", type=Path, help="only this repository's")
    return made


def run(options: argparse.Namespace) -> int:
    """0 when done, 1 when the answer to the question was no."""
    repository = str(expanded(options.repository).resolve()) if options.repository else None
    if options.action == "show":
        return _show(repository, as_json=options.json)
    if options.action == "export":
        return _export(repository)
    return _purge(repository, options)


def _query(repository: str | None) -> str:
    return f"?repository={quote(repository, safe='')}" if repository else ""


def _rows_of(repository: str | None) -> Iterator[dict[str, Any]]:
    if _runs():
        return Connection().lines("GET", "/atlasd/v1/data/export" + _query(repository))
    from atlasd.commands import stored

    return stored.export(paths(), repository)


def _export(repository: str | None) -> int:
    known = False
    for row in _rows_of(repository):
        known = True
        print_json(row)
    if repository is not None and not known:
        print(f"Nothing is known of {repository}.", file=sys.stderr)
    return 0


def _runs() -> bool:
    return is_locked(paths())


def _show(repository: str | None, *, as_json: bool) -> int:
    if _runs():
        summary = Connection().call("GET", "/atlasd/v1/data" + _query(repository), timeout=60)
    else:
        from atlasd.commands import stored

        summary = stored.show(paths(), repository)
    if as_json:
        print_json(summary)
    else:
        if repository is not None and not summary["repositories"]:
            print(f"Nothing is known of {repository}.\n")
        print(describe(summary))
    return 0


def describe(summary: dict[str, Any]) -> str:
    """The summary for people."""
    lines = [f"{size(summary['bytes'])} in {summary.get('database', 'the database')}"]
    for one in summary["repositories"]:
        lines += ["", styled(one["root"], "bold"), table(_rows(one, "root", "name"))]
    if summary["learned"]:
        lines += ["", styled("Learned in no particular repository", "bold")]
        lines.append(table([_learned(one).split(" ", 1) for one in summary["learned"]]))
    for one in summary["machines"]:
        named = f"Measured on {one['machine']}, model {one['model']}"
        lines += ["", styled(named, "bold"), table([["step costs", size(one["bytes"])]])]
    if cached := summary.get("cache"):
        lines += ["", styled("Files in the cache", "bold")]
        if kept := summary.get("kept"):
            lines[-1] += f" ({kept_for(kept)})"
        lines.append(table([[size(one["bytes"]), one["path"], one["what"]] for one in cached]))
    return "\n".join(lines)


def kept_for(kept: dict[str, int]) -> str:
    """When files in the cache go by themselves."""
    most = size(kept["bytes"])
    return f"removed by itself: unopened for {kept['days']} days of use, or beyond {most}"


def _rows(entry: dict[str, Any], *titles: str) -> list[list[str]]:
    return [
        [key.replace("_", " "), _said(key, value)]
        for key, value in entry.items()
        if key not in titles and value is not None
    ]


def _said(name: str, value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_said(name, one)}" for key, one in value.items()) or "none"
    if isinstance(value, list):
        return "; ".join(_learned(one) for one in value) or "nothing"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return size(value) if "bytes" in name else count(value)
    return "" if value is None else str(value)


def _learned(one: dict[str, Any]) -> str:
    """A piece of learned state: its kind, its size, its day."""
    day = time.strftime("%Y-%m-%d", time.localtime(one["saved"]))
    return f"{one['kind']} {size(one['bytes'])}, saved {day}"


def _purge(repository: str | None, options: argparse.Namespace) -> int:
    if repository is None and not options.all:
        raise AtlasdError("Name what to remove.", "Give --repository FOLDER, or --all.")
    what = repository or "everything that atlasd has stored and learned"
    if not options.yes:
        if not sys.stdin.isatty():
            raise AtlasdError("Removing asks first.", "Say --yes where nobody can answer.")
        if not _agreed(f"Remove {what}? [y/N] "):
            print("Nothing was removed.")
            return 1
    if _runs():
        body = {"repository": repository}
        removed = Connection().call("POST", "/atlasd/v1/data/purge", body, timeout=600)["removed"]
    else:
        from atlasd.commands import stored

        removed = stored.purge(paths(), repository)
    files = removed.pop("cached files", 0)
    rows = sum(removed.values())
    what = ", ".join(f"{table} {n}" for table, n in removed.items())
    if not rows:
        what = "nothing was stored"
        if repository is not None:
            what = f"nothing is known of {repository}; see atlasd data show"
    if rows or files:
        print(f"Removed {counted(rows, 'row')} and {counted(files, 'file')}: {what}")
    else:
        print(f"Nothing was removed: {what}")
    return 0


def _agreed(question: str) -> bool:
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:  # Ctrl-D
        print()
        return False
