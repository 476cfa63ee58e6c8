"""An editing session over LSP in this repository, from a daemon's start to what it learned.

    make demo        (python -m bench.demo [--bodies 10] [--seconds 90] [--model NAME])

Works on a copy of the tracked files, in which some functions have lost their bodies, and in a home
of its own: nothing of yours is touched.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from atlasd.commands.output import counted
from bench.demo.developer import Session, Shown, write
from bench.demo.editor import Editor
from bench.demo.results import drafting_table, examples, session_table, stored_by_fate
from bench.drafting import Comparison
from bench.holes import Hole, copy_repository, take_out
from bench.report import machine
from bench.served import Served, serve

ROOT = Path(__file__).resolve().parents[2]
console = Console(highlight=False)


class Measuring:
    """While a suggestion is on the screen, the same one is decoded again without drafting."""

    def __init__(self, served: Served, root: Path) -> None:
        self.compared = Comparison()
        self.moved_on = 0
        """Suggestions whose prompt was another one by then: the context follows edits and saves."""
        self.different: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._served = served
        self._root = root

    async def seen(self, shown: Shown) -> None:
        # What was typed along or decoded ahead cost no time that could be compared.
        drafted = await self._call("GET", f"/atlasd/v1/why?id={shown.suggested.id}")
        if drafted.get("source") != "model":
            return
        body = {
            "prefix": shown.prefix,
            "suffix": shown.suffix,
            "path": str(shown.hole.path),
            "language": "python",
            "repository": str(self._root),
            "trusted": True,
            "client": "demo without drafting",
            "drafting": False,
        }
        answer = await self._call("POST", "/atlasd/v1/complete", body)
        # Without an id: why there was nothing.
        id = f"?id={answer['items'][0]['id']}" if answer["items"] else ""
        plain = await self._call("GET", f"/atlasd/v1/why{id}")
        if plain.get("prompt_hash") != drafted["prompt_hash"]:
            self.moved_on += 1
            return
        texts = {True: _said(drafted, plain), False: _said(plain, drafted)}
        if texts[True] != texts[False]:
            self.different.append((drafted, plain))
        self.compared.add(
            texts, {True: _timings(drafted["stats"]), False: _timings(plain["stats"])}
        )

    async def _call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        call = self._served.connection.call
        return await asyncio.to_thread(call, method, path, body, timeout=120)


def _said(one: dict[str, Any], other: dict[str, Any]) -> str:
    """The suggestion and the raw text it came from, as far as both ways decoded it: what ends a
    stream is found out at the end of a step, and a step with a draft is longer."""
    common = min(len(one["raw"]), len(other["raw"]))
    return f"{one['text']}\0{one['raw'][:common]}"


def _timings(stats: dict[str, Any]) -> dict[str, Any]:
    """The engine's statistics by llama.cpp's names."""
    tokens, ms = stats["output_tokens"], stats["decode_ms"]
    return stats | {
        "predicted_n": tokens,
        "predicted_ms": ms,
        "predicted_per_second": 1000 * tokens / max(ms, 1e-9),
    }


async def edit(
    served: Served, root: Path, holes: list[Hole], seconds: float
) -> tuple[Session, Measuring]:
    """The editing session; no body is begun after ``seconds``."""
    session, measuring = Session(), Measuring(served, root)
    editor = Editor(root)
    await editor.start({"ATLASD_HOME": str(served.folders.data.parent)})
    began = time.monotonic()
    columns = (TextColumn("  {task.description}"), BarColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("", total=len(holes))
        for hole in holes:
            if time.monotonic() - began > seconds:
                break
            where = f"{hole.path.relative_to(root)}:{hole.line}"
            progress.update(bar, description=f"writing {where}")
            await write(editor, hole, session, measuring.seen)
            progress.advance(bar)
    await editor.stop()
    return session, measuring


def run(served: Served, root: Path, holes: list[Hole], seconds: float) -> bool:
    """Open the repository, edit, show; False if no suggestion came or a text differed."""
    model = served.status()["model"]
    console.print(
        f"  health after {served.health_s:.1f} s, {model['model']} ready after "
        f"{served.ready_s:.1f} s ({model['backend']}, {counted(model['threads'], 'thread')})"
    )
    served.open(root)
    [repository] = served.status()["repositories"]
    console.print(
        f"this repository is open in an LSP editor and indexed: {repository['files']} files, "
        f"{repository['tokens']:,} tokens"
    )
    console.print(f"bodies taken out of it, for a developer to write again: {len(holes)}")
    session, measuring = asyncio.run(edit(served, root, holes, seconds))
    for text in examples(session, root):
        console.print(text)
    console.print(session_table(session, stored_by_fate(served)))
    console.print(drafting_table(measuring.compared, measuring.moved_on))
    for drafted, plain in measuring.different:
        console.print("[bold red]The same prompt gave two texts; this must never be:[/]")
        console.print_json(data={"with drafting": drafted, "without": plain})
    return bool(session.shown) and not measuring.different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bodies", type=int, default=10, help="functions to write, at most")
    parser.add_argument("--seconds", type=float, default=90, help="no function is begun after")
    parser.add_argument("--model")
    options = parser.parse_args()
    console.print(f"[bold]atlasd demo[/bold] on {machine()}")
    with tempfile.TemporaryDirectory(prefix="atlasd-demo-") as folder:
        root = Path(folder, "atlasd")
        python = copy_repository(ROOT, root)
        product = [path for path in python if path.is_relative_to(root / "atlasd")]
        holes = take_out(product, options.bodies, seed=7)
        console.print("starting the daemon …")
        with serve(*(["--model", options.model] if options.model else [])) as served:
            good = run(served, root, holes, options.seconds)
    console.print("Everything above ran on this machine; the demo's home is removed again.")
    console.print("Next: [bold]make start[/bold], then .venv/bin/atlasd connect neovim (or vscode)")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
