"""What commands print: colours where a terminal shows them, JSON where a script reads."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def coloured() -> bool:
    """Whether standard output shows colours (https://no-color.org)."""
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def styled(text: str, *styles: str) -> str:
    """``text`` in ``styles``, line by line so that pagers keep them; plain if not ``coloured``."""
    if not coloured() or not text:
        return text
    codes = ";".join(STYLES[style] for style in styles)
    return "\n".join(f"\033[{codes}m{line}\033[0m" if line else "" for line in text.split("\n"))


def print_json(value: Any) -> None:
    """One value on one line; what the encoding of the output lacks is escaped."""
    plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    print(json.dumps(value, ensure_ascii=plain, separators=(",", ":")))


def count(number: float) -> str:
    """A number for people: 1,234 or 12.3k or 4.5M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e5, "k")):
        if number >= size:
            return f"{number / (1e3 if unit == 'k' else size):.1f}{unit}"
    return f"{number:,.0f}"


def counted(number: int, noun: str) -> str:
    """``1 file``, ``1,234 files``."""
    return f"{count(number)} {noun}" + ("" if number == 1 else "s")


def size(number: float) -> str:
    """Bytes for people."""
    for step, unit in ((2**30, "GB"), (2**20, "MB"), (2**10, "kB")):
        if number >= step:
            return f"{number / step:.1f} {unit}"
    return f"{number:.0f} bytes"


def duration(seconds: float) -> str:
    """A time for people."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def table(rows: list[list[str]], indent: str = "  ") -> str:
    """Columns of text, aligned left."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    return "\n".join((indent + line).rstrip() for line in lines)
