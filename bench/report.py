"""How every bench writes its numbers: a table with the machine and the conditions beside it."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

import psutil


def machine() -> str:
    """Processor, cores, memory and load, in a line."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            name = line.split(":", 1)[1].strip()
            break
    memory = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB, load {load:.1f}"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """``median (min to max)``."""
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table under a heading, with the machine below it."""
    lines = [f"### {title}", "", "| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join([*lines, "", f"Machine: {machine()}.", ""])
