"""A terminal's screen as an SVG picture, cell by cell."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from itertools import groupby

import pyte
from pyte.screens import Char

CELL, ROW, FONT, EDGE = 9.0, 20.0, 15, 12.0

# The default colours of Neovim's dark scheme, for cells that name none.
BACKGROUND, FOREGROUND = "#14161b", "#e0e2ea"
_NAMED = {"brightblack": "#8a8d94", "brown": "#d7af5f", "green": "#8ccf7e", "cyan": "#8cf8f7"}

Look = tuple[str, str, bool, bool]
"""Foreground, background, bold, italics."""


def svg(screen: pyte.Screen, title: str, *, cursor: bool) -> str:
    """The rows of the screen down to the last that is not empty; ``cursor`` as a bar."""
    rows = last_row(screen) + 1
    width, height = screen.columns * CELL + 2 * EDGE, rows * ROW + 2 * EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
        f'<g transform="translate({EDGE:g} {EDGE:g})" '
        f'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="{FONT}">',
    ]
    for row in range(rows):
        for column, text, look in runs(screen, row):
            parts.extend(drawn(column, row, text, look))
    if cursor:
        x, y = screen.cursor.x * CELL, screen.cursor.y * ROW
        parts.append(f'<rect x="{x:g}" y="{y:g}" width="2" height="{ROW:g}" fill="{FOREGROUND}"/>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


def last_row(screen: pyte.Screen) -> int:
    return max(row for row, line in enumerate(screen.display) if line.strip() or row == 0)


def runs(screen: pyte.Screen, row: int) -> Iterator[tuple[int, str, Look]]:
    """(column, text, look) of each run of cells that look alike."""
    cells = [(column, screen.buffer[row][column]) for column in range(screen.columns)]
    for look, run in groupby(cells, key=lambda cell: look_of(cell[1])):
        members = list(run)
        yield members[0][0], "".join(cell.data for _, cell in members), look


def drawn(column: int, row: int, text: str, look: Look) -> Iterator[str]:
    front, back, bold, italics = look
    y = row * ROW
    if back != BACKGROUND:
        yield (
            f'<rect x="{column * CELL:g}" y="{y:g}" width="{len(text) * CELL:g}" '
            f'height="{ROW:g}" fill="{back}"/>'
        )
    if inner := text.strip():
        # Viewers drop spaces at the ends of a text and join those inside it.
        x = (column + len(text) - len(text.lstrip())) * CELL
        face = ' font-weight="bold"' * bold + ' font-style="italic"' * italics
        yield (
            f'<text x="{x:g}" y="{y + 15:g}" textLength="{len(inner) * CELL:g}" fill="{front}"'
            f"{face}>{escape(inner).replace(' ', '&#160;')}</text>"
        )


def look_of(cell: Char) -> Look:
    front, back = colour(cell.fg, FOREGROUND), colour(cell.bg, BACKGROUND)
    if cell.reverse:
        front, back = back, front
    return front, back, cell.bold, cell.italics


def colour(name: str, default: str) -> str:
    """pyte's name of a colour as CSS: six hexadecimal digits, or a name."""
    if name == "default":
        return default
    if len(name) == 6 and set(name) <= set("0123456789abcdef"):
        return f"#{name}"
    return _NAMED.get(name, name)
