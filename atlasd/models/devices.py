"""What the machine offers a model: the device, its memory, its threads."""

from __future__ import annotations

import ctypes
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil  # type: ignore[import-untyped]
from atlasd_kernels.cpu.quota import granted_processors

from atlasd.errors import ModelError

if TYPE_CHECKING:
    from atlasd.models.llama import LlamaDecoder


def measure_threads(decoder: LlamaDecoder) -> int:
    """The torch thread count with the fastest decode step now. A higher one must win clearly:
    threads that wait for each other on busy cores cost more than they bring."""
    import torch

    row = np.zeros(1, np.int32)
    best, best_seconds = 1, float("inf")
    allowed = len(os.sched_getaffinity(0))
    most = min(allowed, granted_processors() or allowed)
    count = 1
    while count <= most:
        torch.set_num_threads(count)
        decoder.find_sizes()
        seconds = []
        for _ in range(6):
            begin = time.perf_counter()
            decoder.forward(row, row, row, row)
            seconds.append(time.perf_counter() - begin)
        # The median, not the best: a step that is slow every other time is slow.
        median = sorted(seconds)[3]
        if median < best_seconds * 0.9:
            best, best_seconds = count, median
        count *= 2
    return best


def choose_device(device: str, backend: str) -> str:
    """``cpu`` or ``cuda``; a driver is looked for before torch is imported. Raises ModelError."""
    if device not in ("auto", "cpu", "cuda"):
        raise ModelError(f"There is no device {device!r}.", "Use auto, cpu or cuda.")
    if device == "cpu" or backend == "native":
        return "cpu"
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        if device == "cuda":
            raise ModelError("No CUDA driver is installed.", "Use --device cpu.") from None
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise ModelError(
            "This torch has no CUDA, or finds no GPU.", "Install a CUDA build, or use --device cpu."
        )
    return "cpu"


def multiplies_bf16() -> bool:
    """Whether this processor has instructions for matmuls in bf16."""
    import torch

    flags = torch.backends.cpu.get_cpu_capability()
    if not flags.startswith("AVX512"):
        return False
    try:
        known = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in known or "amx_bf16" in known


def free_memory() -> int:
    """Bytes of memory that a model may take: three quarters of what is free."""
    return int(psutil.virtual_memory().available * 3 // 4)


def free_cuda_memory() -> int:
    """Bytes of GPU memory that a model may take: nine tenths of what is free."""
    import torch

    return int(torch.cuda.mem_get_info()[0] * 9 // 10)
