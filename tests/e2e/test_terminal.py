"""The terminal that other tests look through."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.terminal import Terminal

pytestmark = pytest.mark.e2e


def test_a_program_that_ended_is_not_waited_for(tmp_path: Path) -> None:
    terminal = Terminal([sys.executable, "-c", "print('all there is')"], dict(os.environ), tmp_path)
    try:
        assert "all there is" in terminal.until("all there is")
        began = time.monotonic()
        with pytest.raises(AssertionError, match="ended without more"):
            terminal.until("more", timeout_s=60)
        assert time.monotonic() - began < 20
    finally:
        terminal.close()
