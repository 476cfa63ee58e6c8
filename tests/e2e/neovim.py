"""Real Neovims for the tests, and a terminal with one in it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "editor-extensions" / "neovim"
BRIDGE = Path(sys.executable).with_name("atlasd-lsp")
VERSIONS = ("0.11", "0.12")


def neovim(version: str) -> str:
    """The path of a Neovim of that version; skips the test where there is none."""
    path = ROOT / ".cache" / "neovim" / f"nvim-{version}"
    if not path.exists():
        pytest.skip(f"no Neovim {version} here: run tests/e2e/fetch_neovim.sh")
    return str(path)


def open_neovim(
    version: str,
    home: Path,
    file: Path,
    settings: str = "",
    before: str = "",
    size: tuple[int, int] = (100, 30),
) -> Terminal:
    """Neovim with the plugin, editing ``file``, whose daemon lives below ``home``. ``settings``
    are Lua fields for ``setup``, ``before`` is Lua run before it."""
    config = home / "init.lua"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f"""
vim.opt.runtimepath:prepend("{PLUGIN}")
vim.opt.swapfile, vim.opt.shadafile, vim.opt.expandtab = false, "NONE", true
vim.opt.laststatus, vim.opt.ruler, vim.opt.termguicolors = 2, false, true
{before}
require("atlasd").setup{{ cmd = {{ "{BRIDGE}" }}, {settings} }}
"""
    )
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "ATLASD_HOME": str(home),
        "XDG_STATE_HOME": str(home / "nvim-state"),
        # Otherwise a terminal that answers after more than 100 ms is complained about.
        "NVIM_TEST": "1",
    }
    command = [neovim(version), "-n", "-u", str(config), str(file)]
    return Terminal(command, environ, file.parent, *size)
