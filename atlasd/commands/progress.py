"""Progress on long work: a bar in a terminal, a line per stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

LINE_EVERY_S = 5.0


class Bar(Protocol):
    """Something that shows how far the work is."""

    def __call__(self, stage: str, fraction: float | None) -> None:
        """``fraction`` is 0..1, or None while nobody knows."""
        ...


@contextmanager
def bar(start: str) -> Iterator[Bar]:
    """A bar on standard error, so that standard output stays clean."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(start, total=None)

        def show(stage: str, fraction: float | None) -> None:
            total = None if fraction is None else 1.0
            progress.update(task, description=stage, total=total, completed=fraction or 0.0)

        yield show


class _Lines:
    """For logs: a line per stage, and within a stage that counts, one every few seconds."""

    def __init__(self) -> None:
        self._kind = ""
        self._next = 0.0

    def __call__(self, stage: str, fraction: float | None) -> None:
        kind = "".join(letter for letter in stage if not letter.isdigit())
        if kind != self._kind or time.monotonic() > self._next:
            self._kind, self._next = kind, time.monotonic() + LINE_EVERY_S
            print(stage, file=sys.stderr)


def follow(steps: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Show the daemon's loading progress to its end; returns the last step."""
    last: dict[str, Any] = {}
    with bar("starting") as show:
        for last in steps:
            if last["state"] == "loading":
                show(last["stage"], last["fraction"])
    return last
