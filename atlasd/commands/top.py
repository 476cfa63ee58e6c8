"""``atlasd top``: tokens per second, acceptance and memory, live."""

from __future__ import annotations

import argparse
import time
from typing import Any

from atlasd.commands.connection import Connection
from atlasd.commands.output import count, duration, size
from atlasd.commands.status import describe

HISTORY = 48
COURSE = 24
BLOCKS = " ▁▂▃▄▅▆▇█"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd top", description="What the daemon does, live. Ctrl-C ends it."
    )
    made.add_argument("--interval", type=float, default=1.0, help="seconds between looks (1)")
    made.add_argument("--once", action="store_true", help="one look, then end")
    return made


def run(options: argparse.Namespace) -> int:
    """0 when ended by Ctrl-C."""
    connection = Connection()
    status = _look(connection)
    if options.once:
        print(describe(status))
        return 0
    from rich.live import Live

    history: list[float] = []
    try:
        with Live(view(status, history), auto_refresh=False, screen=True) as live:
            while True:
                before, seen = status, time.monotonic()
                time.sleep(max(0.1, options.interval))
                status = _look(connection)
                history.append(_rate(before, status, time.monotonic() - seen))
                del history[:-HISTORY]
                live.update(view(status, history), refresh=True)
    except KeyboardInterrupt:
        return 0


def _look(connection: Connection) -> dict[str, Any]:
    """The status, and under ``drawn`` what the dashboard draws."""
    status = connection.call("GET", "/atlasd/v1/status", timeout=10)
    drawn = connection.call("GET", "/dashboard/data", timeout=10)
    return {**status, "drawn": drawn}


def _rate(before: dict[str, Any], now: dict[str, Any], seconds: float) -> float:
    made: int = now["served"]["output_tokens"] - before["served"]["output_tokens"]
    return max(0.0, made / seconds)


def view(status: dict[str, Any], history: list[float]) -> Any:
    """The screen: a table per concern. ``history`` are tokens per second, oldest first."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    served, engine = status["served"], status["engine"] or {}
    head = Text(
        f"atlasd {status['version']} · {status['model']['name']} · {status['state']}"
        f" · up {duration(status['uptime_s'])}",
        style="bold",
    )
    drawn = status.get("drawn") or {"speed": {}, "repositories": []}
    facts = Table.grid(padding=(0, 2))
    facts.add_row("now", f"{history[-1] if history else 0:.0f} tokens/s  {spark(history)}")
    facts.add_row("decoding", _decoding(drawn["speed"]))
    facts.add_row("streams", f"{engine.get('streams', 0)} decoding, {engine.get('queued', 0)} wait")
    cached = f"{count(served['prompt_tokens'])} prompt ({count(served['cached_tokens'])} cached)"
    facts.add_row("tokens", f"{count(served['output_tokens'])} out, {cached}")
    held = engine.get("memory") or {}
    facts.add_row("memory", ", ".join(f"{name} {size(used)}" for name, used in held.items()))
    drafts = _table("Drafting" if status["drafting"] else "Drafting (off)")
    for column in ("drafter", "drafted", "accepted", "share"):
        drafts.add_column(column, justify="left" if column == "drafter" else "right")
    for source, drafted in sorted(served["drafted"].items()):
        accepted = served["accepted"].get(source, 0)
        share = f"{accepted / drafted:.0%}" if drafted else ""
        drafts.add_row(source, count(drafted), count(accepted), share)
    roots = _table("Repositories")
    for column in ("root", "files", "tokens", "state"):
        roots.add_column(column)
    for one in status["repositories"]:
        roots.add_row(one["root"], str(one["files"]), count(one["tokens"]), one["state"])
    return Group(head, Text(), facts, Text(), drafts, Text(), _course(drawn), Text(), roots)


def _table(title: str) -> Any:
    """Without lines, so that all of them fit a terminal of 24 rows."""
    from rich.table import Table

    return Table(title=title, title_justify="left", box=None, header_style="dim", pad_edge=False)


def _decoding(speed: dict[str, float]) -> str:
    now, plain = speed.get("decoding", 0.0), speed.get("plain", 0.0)
    told = f"{now:.0f} tokens/s in the last streams" if now else "nothing yet"
    if not plain:
        return told
    ratio = f" ({now / plain:.2f}x)" if now else ""
    return f"{told}, without drafting {plain:.0f}{ratio}"


def _course(drawn: dict[str, Any]) -> Any:
    """Per repository, how accepted share, confidence and lookahead went over its last streams."""
    table = _table("Over the last streams")
    for column in ("repository", "accepted", "confidence", "lookahead"):
        table.add_column(column)
    for one in drawn["repositories"]:
        last = one["points"][-COURSE:]
        if last:
            table.add_row(
                one["root"] or "none",
                f"{last[-1]['accepted']:>4.0%} {spark([p['accepted'] for p in last], 1.0)}",
                f"{last[-1]['confidence']:>4.0%} {spark([p['confidence'] for p in last], 1.0)}",
                f"{last[-1]['lookahead']:>4.1f} {spark([p['lookahead'] for p in last], 16.0)}",
            )
    return table


def spark(values: list[float], top: float = 0.0) -> str:
    """Values as a line of blocks; ``top`` is the full block's (0: the largest of them)."""
    top = top or max(values, default=0.0) or 1.0
    last = len(BLOCKS) - 1
    return "".join(BLOCKS[round(min(1.0, value / top) * last)] for value in values)
