"""The demo's tables, and some of what was accepted drawn as ghost text."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table
from rich.text import Text

from bench.demo.developer import Session
from bench.drafting import Comparison
from bench.served import Served

GHOST = "italic bright_black"


def examples(session: Session, root: Path, count: int = 3) -> Iterator[Text]:
    """What was taken whole or in part, the longest first: what was typed, then the ghost text."""
    for shown in sorted(session.shown, key=lambda one: -len(one.taken))[:count]:
        if not shown.taken:
            return
        line = shown.prefix.rsplit("\n", 1)[-1]
        where = f"{shown.hole.path.relative_to(root)}:{shown.prefix.count(chr(10)) + 1}"
        yield Text(f"  {where}", style="dim")
        yield Text(f"  {line}").append(shown.taken, style=GHOST)


def session_table(session: Session, stored: dict[str, int]) -> Table:
    table = _table("The session")
    table.add_row("functions written", str(session.bodies))
    table.add_row("times a completion was asked for", str(session.asked))
    table.add_row("completions shown", str(len(session.shown)))
    table.add_row("accepted whole / by words", f"{session.accepted} / {session.accepted_in_part}")
    share = 100 * session.accepted_characters / max(1, session.characters)
    table.add_row("characters that were not typed", f"{share:.0f} %")
    waits = [one.suggested.ms for one in session.shown] or [0.0]
    table.add_row("time to ghost text, median", f"{statistics.median(waits):.0f} ms")
    for fate, count in stored.items():
        table.add_row(f"in the database as {fate}", str(count))
    return table


def drafting_table(compared: Comparison, moved_on: int) -> Table:
    """The session's own completions, each decoded once with drafting and once without; of
    ``moved_on`` more the prompt had become another one in between."""
    table = _table("The same completions with and without drafting")
    table.add_row("completions, tokens", f"{len(compared.ratios)}, {compared.decoded[True]}")
    table.add_row("tokens per second with drafting", f"{compared.speed(True):.0f}")
    table.add_row("tokens per second without", f"{compared.speed(False):.0f}")
    if compared.ratios:
        table.add_row("with over without, median", f"{statistics.median(compared.ratios):.2f}x")
    table.add_row("tokens per step with drafting", f"{compared.tokens_a_step:.2f}")
    table.add_row("same prompt, different text", str(compared.different))
    table.add_row("not compared: the prompt had moved on", str(moved_on))
    for source, drafted in sorted(compared.drafted.items(), key=lambda item: -item[1]):
        accepted = compared.accepted.get(source, 0)
        table.add_row(f"drafted by {source}", f"{accepted} of {drafted} accepted")
    return table


def stored_by_fate(served: Served) -> dict[str, int]:
    """What SQLite holds now of the session's completions."""
    data = served.connection.call("GET", "/atlasd/v1/data", timeout=30)
    rows: dict[str, int] = {}
    for repository in data.get("repositories", []):
        for fate, count in (repository.get("completions") or {}).items():
            if fate in ("accepted", "accepted_line", "accepted_word", "dismissed", "superseded"):
                rows[fate] = rows.get(fate, 0) + count
    return rows


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("what")
    table.add_column("number", justify="right")
    return table
