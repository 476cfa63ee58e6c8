"""What a step costs while another program keeps one processor busy."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from atlasd_kernels.cpu import CpuDecoder

from bench.report import table


@contextmanager
def busy_processor() -> Iterator[None]:
    """A loop of ordinary priority, bound to the last processor this process may use."""
    program = f"import os; os.sched_setaffinity(0, [{max(os.sched_getaffinity(0))}])"
    with subprocess.Popen([sys.executable, "-c", f"{program}\nwhile True: pass"]) as process:
        try:
            time.sleep(0.2)
            yield
        finally:
            process.kill()


def milliseconds(decoder: CpuDecoder, steps: int = 60) -> float:
    """Of a plain step, the mean over a run: stalls count."""
    row = np.zeros(1, np.int32)
    began = time.perf_counter()
    for position in range(steps):
        decoder.forward(row, row, row + position, row)
    return (time.perf_counter() - began) / steps * 1e3


def busy_table(decoders: dict[tuple[str, int], CpuDecoder], rounds: int) -> str:
    lines = []
    for (weight_format, threads), decoder in decoders.items():
        idle, busy = [], []
        for _ in range(rounds):
            idle.append(milliseconds(decoder))
            with busy_processor():
                busy.append(milliseconds(decoder))
        ratios = [b / i for b, i in zip(busy, idle, strict=True)]
        cells: list[object] = [weight_format, threads]
        cells += [f"{statistics.median(values):.2f}" for values in (idle, busy, ratios)]
        lines.append([*cells, f"{min(ratios):.2f} to {max(ratios):.2f}"])
    header = ["weights", "threads", "ms", "ms, one processor busy", "ratio", "spread"]
    return table("A step with one processor kept busy by another program", header, lines)
