"""Draws docs/demo.svg: what ``make demo`` leaves in a terminal.

Run with ``python -m tests.e2e.demo_picture [options of the demo]``, on a machine with nothing else
to do: the picture shows measurements.
"""

from __future__ import annotations

import os
import sys
import time

from tests.e2e.neovim import ROOT
from tests.e2e.picture import svg
from tests.e2e.terminal import Terminal

PICTURE = ROOT / "docs" / "demo.svg"
COLUMNS, LINES = 84, 48
LAST_LINE = "atlasd connect neovim"
PATIENCE_S = 300.0


def main() -> None:
    command = [sys.executable, "-m", "bench.demo", *sys.argv[1:]]
    terminal = Terminal(command, dict(os.environ), ROOT, COLUMNS, LINES)
    try:
        terminal.until(LAST_LINE, PATIENCE_S)
        time.sleep(0.5)
        PICTURE.write_text(svg(terminal.screen, "make demo", cursor=False))
    finally:
        terminal.close()
    print(PICTURE)


if __name__ == "__main__":
    main()
