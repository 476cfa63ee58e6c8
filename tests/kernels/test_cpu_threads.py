"""Threads: how many, and what a busy processor costs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from atlasd_kernels.cpu import CpuDecoder, measure_threads, read_bandwidth

Make = Callable[..., CpuDecoder]


@contextmanager
def busy_processor() -> Iterator[None]:
    """Another program that never stops, bound to one of this process's processors."""
    last = max(os.sched_getaffinity(0))
    program = f"import os; os.sched_setaffinity(0, [{last}])\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", program]) as process:
        try:
            time.sleep(0.2)
            yield
        finally:
            process.kill()


def seconds(decoder: CpuDecoder, steps: int) -> float:
    row = np.zeros(1, np.int32)
    began = time.perf_counter()
    for position in range(steps):
        decoder.forward(row, row, row + position, row)
    return time.perf_counter() - began


def test_the_measured_count_is_within_what_the_process_may_use() -> None:
    assert 1 <= measure_threads() <= len(os.sched_getaffinity(0))


def test_more_threads_than_processors_do_not_spin_on_each_other(make_decoder: Make) -> None:
    """OpenMP and llama.cpp get tens of times slower here; sleeping threads do not."""
    one, many = make_decoder("qwen3", threads=1), make_decoder("qwen3", threads=8)
    best = {1: 1e9, 8: 1e9}
    for _ in range(5):
        best[1] = min(best[1], seconds(one, 20))
        best[8] = min(best[8], seconds(many, 20))
    assert best[8] < 12 * best[1]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two processors")
def test_a_busy_processor_costs_its_share(make_decoder: Make) -> None:
    """The best of several: how slow it gets is bench/step.py's business, that it does not
    collapse is this test's."""
    decoder = make_decoder("qwen3", threads=2)
    seconds(decoder, 20)
    idle = min(seconds(decoder, 30) for _ in range(5))
    with busy_processor():
        busy = min(seconds(decoder, 30) for _ in range(5))
    assert busy < 6 * idle


def test_threads_sleep_between_steps(make_decoder: Make) -> None:
    decoder = make_decoder("qwen3", threads=2)
    seconds(decoder, 5)
    before = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - before < 0.1


@pytest.mark.parametrize("size", [1000, 3 << 20, 100 << 20])
def test_bandwidth_is_measured_over_any_number_of_bytes(size: int) -> None:
    assert 1e8 < read_bandwidth(2, size) < 1e12
