"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, where that build exists:
``python -m atlasd_kernels.cpu.build --sanitize``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import atlasd_kernels.cpu
import pytest
from atlasd_kernels.cpu import build


def test_nothing_reads_or_writes_outside_its_memory() -> None:
    library = Path(atlasd_kernels.cpu.__file__).parent / build.library_name(sanitize=True)
    compiler = build.compiler()
    if not library.exists() or compiler is None:
        pytest.skip("no sanitized build")
    runtime = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    environment = {
        **os.environ,
        "LD_PRELOAD": runtime,
        "ATLASD_NATIVE_LIBRARY": str(library),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps what it allocated
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("sanitized.py"))],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "no complaint" in done.stdout
