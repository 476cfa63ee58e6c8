"""What ``make demo`` runs, cut short."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.e2e.neovim import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


def test_the_demo_shows_a_session_and_what_drafting_brings() -> None:
    command = [sys.executable, "-m", "bench.demo", "--bodies", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    for said in ("ready after", "is open in an LSP editor", "times a completion was asked for",
                 "with over without", "connect neovim"):  # fmt: skip
        assert said in done.stdout
