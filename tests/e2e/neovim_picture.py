"""Draws docs/neovim-ghost-text.svg: a real Neovim with a real suggestion, cell by cell.

Run with ``python -m tests.e2e.neovim_picture``; it needs a Neovim of tests/e2e/fetch_neovim.sh.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.neovim import ROOT, open_neovim
from tests.e2e.picture import svg
from tests.e2e.terminal import Terminal

SAMPLE = ROOT / "editor-extensions" / "vscode" / "e2e"
PICTURE = ROOT / "docs" / "neovim-ghost-text.svg"
VERSION = "0.12"
COLUMNS, LINES = 84, 26

SETTINGS = """
vim.o.number, vim.o.cmdheight, vim.o.showmode, vim.o.guicursor = true, 1, true, ""
vim.cmd("filetype indent off")
vim.o.autoindent = false
vim.opt.statusline = " %f%=%{v:lua.require'atlasd'.visible() ? 'atlasd' : ''} %l:%c "
"""


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
        terminal = open_neovim(VERSION, home, file, before=SETTINGS, size=(COLUMNS, LINES))
        try:
            terminal.until(file.name)
            terminal.send("Go")
            terminal.type(typing["text"].replace("\n", "\r"), 0.05)
            if not suggested(terminal, typing["more"]):
                sys.exit(f"No suggestion on the screen:\n{terminal.text()}")
            time.sleep(1)  # what was typed last is on the screen, and so is its answer
            picture = svg(terminal.screen, "Ghost text of atlasd in Neovim", cursor=True)
            PICTURE.write_text(picture)
        finally:
            terminal.close()
            subprocess.run([*atlasd, "stop"], env=environ, check=True)
    print(PICTURE)


if __name__ == "__main__":
    main()
