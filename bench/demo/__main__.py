"""An editing session over LSP in this repository, from a daemon's start to what it learned.

    make demo        (python -m bench.demo [--lines 40] [--sites 12] [--model NAME])

Works on a copy of the tracked files and in a home of its own: nothing of yours is touched.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from bench.demo.developer import Session, tasks, write
from bench.demo.editor import Editor
from bench.drafting import compare, sites_in
from bench.report import machine
from bench.served import Served, serve

ROOT = Path(__file__).resolve().parents[2]
console = Console(highlight=False)


def copy_repository(target: Path) -> list[str]:
    """The tracked text files of this repository, copied; the Python ones among them by name."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    python = []
    for name in listed:
        source = ROOT / name
        if source.suffix in {".safetensors", ".png"} or not source.is_file():
            continue
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target / name)
        if name.startswith("atlasd/") and name.endswith(".py"):
            python.append(name)
    subprocess.run(["git", "init", "-q", target], check=True)
    return sorted(python)


async def edit(served: Served, root: Path, python: list[str], lines: int) -> Session:
    """The editing session."""
    session = Session()
    editor = Editor(root)
    await editor.start({"ATLASD_HOME": str(served.folders.data.parent)})
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("typing", total=lines)
        for task in tasks(root, python, lines):
            await write(editor, task, session)
            progress.advance(bar)
    await editor.stop()
    return session


def show_examples(session: Session, count: int = 3) -> None:
    """Some of what was accepted, drawn as ghost text."""
    longest = sorted(session.examples, key=lambda one: -len(one[2]))[:count]
    for task, typed, accepted in longest:
        line = task.before.rsplit("\n", 1)[-1]
        where = task.path.name + ":" + str(task.before.count("\n") + 1)
        console.print(Text(f"  {where}", style="dim"))
        console.print(Text(f"    {line}{typed}").append(accepted, style="italic bright_black"))


def show_table(session: Session, stored: dict[str, object]) -> None:
    table = Table(title="The session", title_justify="left")
    table.add_column("what")
    table.add_column("number", justify="right")
    table.add_row("times a completion was asked for", str(session.asked))
    table.add_row("completions shown", str(session.shown))
    table.add_row("accepted whole", str(session.accepted))
    table.add_row("accepted by words", str(session.accepted_in_part))
    share = 100 * session.accepted_characters / max(1, session.characters)
    table.add_row("characters that were not typed", f"{share:.0f} %")
    table.add_row("time to ghost text, median", f"{statistics.median(session.ms or [0]):.0f} ms")
    for name, count in stored.items():
        table.add_row(name, str(count))
    console.print(table)


def stored_by_fate(served: Served) -> dict[str, object]:
    """What SQLite holds now of the session's completions."""
    data = served.connection.call("GET", "/atlasd/v1/data", timeout=30)
    rows: dict[str, object] = {}
    for repository in data.get("repositories", []):
        for fate, count in (repository.get("completions") or {}).items():
            rows[f"stored as {fate}"] = count
    return rows


def show_drafting(served: Served, root: Path, python: list[str], sites: int) -> None:
    """The same completions with drafting off and on, and where the drafts came from."""
    before = served.status()["engine"]["sources"]
    chosen = sites_in([root / name for name in python], sites, seed=3)
    ratios, per_step, different = compare(served, chosen, 48)
    after = served.status()["engine"]["sources"]
    table = Table(title="Drafting, off and on in turn", title_justify="left")
    table.add_column("what")
    table.add_column("number", justify="right")
    table.add_row("tokens per second, on over off, median", f"{statistics.median(ratios):.2f}x")
    table.add_row("tokens per step with drafting", f"{per_step:.2f}")
    table.add_row("texts that differed", str(different))
    for source, counts in sorted(after.items()):
        old = before.get(source, {})
        drafted = counts.get("drafted", 0) - old.get("drafted", 0)
        accepted = counts.get("accepted", 0) - old.get("accepted", 0)
        if drafted:
            table.add_row(f"drafted by {source}", f"{accepted:.0f} of {drafted:.0f} accepted")
    console.print(table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=40, help="lines to write again")
    parser.add_argument("--sites", type=int, default=12, help="cursors of the drafting table")
    parser.add_argument("--model")
    options = parser.parse_args()
    console.print(f"[bold]atlasd demo[/bold] on {machine()}")
    with tempfile.TemporaryDirectory(prefix="atlasd-demo-") as folder:
        root = Path(folder) / "atlasd"
        root.mkdir()
        python = copy_repository(root)
        console.print("starting the daemon …")
        with serve(*(["--model", options.model] if options.model else [])) as served:
            model = served.status()["model"]
            console.print(
                f"  health after {served.health_s:.1f} s, {model['model']} ready after "
                f"{served.ready_s:.1f} s ({model['backend']}, {model['threads']} threads)"
            )
            console.print(f"opening this repository in an LSP editor ({len(python)} files) …")
            served.open(root)
            session = asyncio.run(edit(served, root, python, options.lines))
            show_examples(session)
            show_table(session, stored_by_fate(served))
            show_drafting(served, root, python, options.sites)
    console.print("Everything above ran on this machine; the demo's home is removed again.")
    console.print("Next: [bold]make start[/bold], then .venv/bin/atlasd connect neovim (or vscode)")
    return 0 if session.shown else 1


if __name__ == "__main__":
    sys.exit(main())
