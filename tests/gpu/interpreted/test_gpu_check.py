"""The sections of gpu_check from end to end: tiny shapes, the interpreter, and the host's clock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest
import torch

from bench import gpu_check, gpu_rows, gpu_shapes, gpu_step, gpu_timing, gpu_waterfall
from bench.shapes import SHAPES, Shape

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

TINY = Shape(1, 128, 2, 1, 128, 320, tied=False)


def host_ms(run: Callable[[], object], **_: Any) -> float:
    began = perf_counter()
    run()
    return (perf_counter() - began) * 1e3


def named(run: Callable[[], object]) -> list[tuple[str, int, float]]:
    """What a profiler would tell."""
    run()
    kernels = [kernel for part in gpu_step.KERNELS.values() for kernel in part]
    return [(kernel.fn.__name__, 1, 0.25) for kernel in kernels]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[gpu_check.Check]:
    for name in ("7B", "1.5B", "0.5B"):
        monkeypatch.setitem(SHAPES, name, TINY)
    monkeypatch.setattr(gpu_shapes, "DEVICE", torch.device("cpu"))
    for module in (gpu_shapes, gpu_timing, gpu_waterfall):
        monkeypatch.setattr(module, "wall_ms", host_ms)
    monkeypatch.setattr(gpu_timing, "device_ms", host_ms)
    monkeypatch.setattr(gpu_timing, "profiled", named)
    monkeypatch.setattr(gpu_timing, "replayed", lambda run: run)
    monkeypatch.setattr(gpu_timing, "CONTEXT", 64)
    monkeypatch.setattr(gpu_timing, "FAR", 256)
    monkeypatch.setattr(gpu_timing, "PROMPT", 16)
    monkeypatch.setattr(gpu_timing, "ROWS", (1, 8, 16))
    acceptance = tmp_path / "acceptance.json"
    given = {"reach": [0.8, 0.6], "neural": 0.5}
    acceptance.write_text(json.dumps({"source": "a test", "static": given, "adaptive": given}))
    made = gpu_check.Check(tmp_path, 30.0, acceptance)
    made.results["device"] = {"bandwidth_gb_s": 3000, "bf16_tflops": 700.0}
    yield made
    made.close()


def test_every_timed_section_runs_and_is_written(check: gpu_check.Check, tmp_path: Path) -> None:
    sections = gpu_check.sections()
    for name in ("steps", "profile", "attention", "prefill", "waterfall"):
        check.run(name, sections[name][0], 0.0)
    assert check.failed == [], (tmp_path / "gpu_check.log").read_text()
    written = json.loads((tmp_path / "gpu_check.json").read_text())["results"]
    assert written["steps"]["7B nvfp4 16"]["ms"] > 0
    assert written["steps"]["1.5B bf16 1"]["eager"] == "there is no GPU"
    assert len(written["targets"]) == 7
    assert set(written["attention"]) == {"1", "8"}
    assert written["prefill int4"]["share_of_peak"] > 0
    assert list(written["waterfall"]) == [
        *("FP8 plain", "FP4 plain"),
        *("+ static drafter", "+ adaptive drafter"),
    ]
    log = (tmp_path / "gpu_check.log").read_text()
    assert "9 kernels a layer" in log
    assert "| matmul_kernel | 1 | 0.250 |" in log


def test_a_section_that_fails_is_told_and_the_next_one_runs(check: gpu_check.Check) -> None:
    def broken(check: gpu_check.Check) -> None:
        raise RuntimeError("an illegal memory access was encountered")

    ran = []
    check.run("one", broken, 0.0)
    check.run("two", ran.append, 0.0)
    check.run("three", ran.append, 1e9)
    assert ran == [check]
    assert check.failed == ["one", "three: no time"]


@pytest.mark.parametrize("kind", ["bf16", "nvfp4"])
def test_rows_are_compared_and_agree(kind: Any, check: gpu_check.Check) -> None:
    tallies = [
        gpu_rows.check_matmul(kind, 64, 256, 1, silu=False),
        gpu_rows.check_attention(2, 100, 1, None),
    ]
    decoder = gpu_timing.small_decoder(kind, layers=1)
    tallies.append(gpu_rows.check_decoder(decoder, 1, length=6))
    decoder.close()
    assert all(tally.cases > 0 for tally in tallies)
    assert [tally for tally in tallies if tally.differing] == []
