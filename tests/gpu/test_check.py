"""gpu_check without a GPU: it says so and does nothing; and the waterfall's arithmetic."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from bench.gpu_waterfall import best

ROOT = Path(__file__).resolve().parents[2]
COSTS = {1: 4.0, 2: 4.0, 4: 4.0, 8: 4.1, 16: 4.4, 32: 6.0, 64: 9.0}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.gpu_check", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "nothing was checked or timed, because" in done.stderr
    assert not (tmp_path / "out").exists()


def test_lookahead_ends_where_another_token_costs_more_than_it_brings() -> None:
    sure = {"reach": [1.0] * 63, "neural": 0.0}
    rate, lookahead = best(sure, COSTS, 1.0)
    assert (round(rate), lookahead) == (round(64 / 9.0 * 1e3), 63)
    assert best({"reach": [0.0] * 20, "neural": 1.0}, COSTS, 1.0) == (250.0, 0)
    rate, lookahead = best({"reach": [0.8, 0.64, 0.5, 0.4], "neural": 1.0}, COSTS, 1.0)
    # 1.8 tokens in 5 ms, 2.44 in 6, 2.94 in 7: the third is worth its millisecond, the fourth not.
    assert lookahead == 3
    assert rate == pytest.approx(2.94 / 7.0 * 1e3)
