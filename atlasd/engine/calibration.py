"""What was measured on this machine with a model: the thread count and the step costs.

Both are chosen once and kept: rows are exact at one thread count, and a warm start plans well
from its first step. The store keeps the calibrations of the last few models in one payload.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path

import msgspec
from atlasd_kernels.cpu import available, instruction_sets
from atlasd_kernels.cpu.library import VERSION

KIND = "costs"
"""The ``kind`` of the ``Learned`` and ``Restore`` messages that carry it."""

KEPT = 16
"""Calibrations kept, the last used ones."""


class Calibration(msgspec.Struct, frozen=True):
    """Of one model on one machine."""

    threads: int
    costs: bytes
    """``StepCosts.snapshot``."""


class Calibrations:
    """Calibrations by machine and model, as they travel to the store and back."""

    def __init__(self) -> None:
        self._known: dict[str, Calibration] = {}

    def restore(self, payload: bytes) -> None:
        """Take over what ``payload`` gave in an earlier run; one that does not fit is ignored."""
        try:
            self._known.update(msgspec.msgpack.decode(payload, type=dict[str, Calibration]))
        except msgspec.DecodeError:
            return

    def get(self, key: str) -> Calibration | None:
        return self._known.get(key)

    def put(self, key: str, calibration: Calibration) -> None:
        self._known.pop(key, None)
        self._known[key] = calibration

    def payload(self) -> bytes:
        """All that is worth keeping."""
        return msgspec.msgpack.encode(dict(list(self._known.items())[-KEPT:]))


def calibration_key(model: str, *how: str) -> str:
    """Names a model (its ``identity``), the way it is loaded, this machine and its kernels."""
    parts = (_processor(), _kernels(), str(len(os.sched_getaffinity(0))), model, *how)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _kernels() -> str:
    """Other kernels, other costs: an upgrade must not plan with those of the version before."""
    return f"{VERSION} {instruction_sets()[0]}" if available()[0] else ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    return next((line for line in lines if line.startswith("model name")), platform.machine())
