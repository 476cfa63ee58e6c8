"""Draws docs/neovim-ghost-text.svg: a real Neovim with a real suggestion, cell by cell.

Run with ``python -m tests.e2e.neovim_picture``; it needs a Neovim of tests/e2e/fetch_neovim.sh.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path

import pyte
from pyte.screens import Char

from tests.e2e.neovim import ROOT, open_neovim
from tests.e2e.terminal import Terminal

SAMPLE = ROOT / "editor-extensions" / "vscode" / "e2e"
PICTURE = ROOT / "docs" / "neovim-ghost-text.svg"
VERSION = "0.12"
COLUMNS, LINES = 84, 22
CELL, ROW, FONT = 9.0, 20.0, 15

# The default colours of Neovim's dark scheme, for cells that name none.
BACKGROUND, FOREGROUND = "#14161b", "#e0e2ea"
SETTINGS = """
vim.o.number, vim.o.cmdheight, vim.o.showmode, vim.o.guicursor = true, 1, true, ""
vim.opt.statusline = " %f%=%{v:lua.require'atlasd'.visible() ? 'atlasd' : ''} %l:%c "
"""


def colour(name: str, default: str) -> str:
    """pyte's name of a colour as CSS: six hexadecimal digits, or a name."""
    if name == "default":
        return default
    return f"#{name}" if len(name) == 6 and set(name) <= set("0123456789abcdef") else name


def style(cell: Char) -> tuple[str, str, bool, bool]:
    """(foreground, background, bold, italics) of a cell as it is shown."""
    front, back = colour(cell.fg, FOREGROUND), colour(cell.bg, BACKGROUND)
    return (back, front, cell.bold, cell.italics) if cell.reverse else (
        front, back, cell.bold, cell.italics)  # fmt: skip


def runs(screen: pyte.Screen, row: int) -> Iterator[tuple[int, str, tuple[str, str, bool, bool]]]:
    """(column, text, style) of each run of cells that look alike."""
    cells = [(column, screen.buffer[row][column]) for column in range(screen.columns)]
    for look, run in groupby(cells, key=lambda cell: style(cell[1])):
        members = list(run)
        yield members[0][0], "".join(cell.data for _, cell in members), look


def svg(screen: pyte.Screen) -> str:
    """The screen as a picture, with the cursor as a bar."""
    width, height = screen.columns * CELL + 24, screen.lines * ROW + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}">',
        "<title>Ghost text of atlasd in Neovim</title>",
        f'<rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>',
        f'<g transform="translate(12 12)" font-family="DejaVu Sans Mono, Menlo, monospace"'
        f' font-size="{FONT}" xml:space="preserve">',
    ]
    for row in range(screen.lines):
        for column, text, (front, back, bold, italics) in runs(screen, row):
            x, y, length = column * CELL, row * ROW, len(text) * CELL
            if back != BACKGROUND:
                parts.append(
                    f'<rect x="{x:g}" y="{y:g}" width="{length:g}" height="{ROW:g}" fill="{back}"/>'
                )
            if text.strip():
                face = ' font-weight="bold"' * bold + ' font-style="italic"' * italics
                parts.append(
                    f'<text x="{x:g}" y="{y + 15:g}" textLength="{length:g}" fill="{front}"{face}>'
                    f"{escape(text)}</text>"
                )
    x, y = screen.cursor.x * CELL, screen.cursor.y * ROW
    parts.append(f'<rect x="{x:g}" y="{y:g}" width="2" height="{ROW:g}" fill="{FOREGROUND}"/>')
    return "\n".join([*parts, "</g>", "</svg>", ""])


def suggested(terminal: Terminal, more: str) -> bool:
    """Type on until there is a suggestion."""
    for letter in ["", *more]:
        terminal.type(letter)
        try:
            terminal.until("atlasd ", 4)
        except AssertionError:
            continue
        return True
    return False


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        home, folder = Path(name) / "home", Path(name) / "repository"
        folder.mkdir(parents=True)
        subprocess.run(["git", "init", "-q", folder], check=True)
        typing = json.loads((SAMPLE / "typing.json").read_text())
        file = folder / typing["file"]
        file.write_text((SAMPLE / "repository" / file.name).read_text())
        environ = os.environ | {"ATLASD_HOME": str(home)}
        atlasd = [sys.executable, "-m", "atlasd.cli"]
        subprocess.run([*atlasd, "start", "--port", "0"], env=environ, check=True)
        terminal = open_neovim(VERSION, home, file, before=SETTINGS)
        try:
            terminal.until(file.name)
            terminal.send("Go")
            terminal.type(typing["text"].replace("\n", "\r"), 0.05)
            if not suggested(terminal, typing["more"]):
                sys.exit(f"No suggestion on the screen:\n{terminal.text()}")
            PICTURE.write_text(svg(terminal.screen))
        finally:
            terminal.close()
            subprocess.run([*atlasd, "stop"], env=environ, check=True)
    print(PICTURE)


if __name__ == "__main__":
    main()
