"""Several decoding steps of a few streams in one native call, as ctypes sees it (multistep.h);
``atlasd.engine.multistep`` builds on it."""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_double, c_int32, c_void_p
from functools import cache
from typing import Any

from atlasd_kernels.cpu.library import Noise, native
from atlasd_kernels.cpu.plan import PARTS

MOST_STEPS = 32
MOST_STOPS = 16
MOST_STREAMS = 16
MOST_ROWS = 64

NONE, STOP, LENGTH, ASK, DAMAGED, TIME = range(6)
"""``StepsEnd`` of multistep.h: why an output or a call ended."""


class TakenStep(ctypes.Structure):
    """Mirrors ``TakenStep`` in multistep.h."""

    _fields_ = [
        *((name, c_int32) for name in ("rows", "record_bytes")),
        *((name, c_double) for name in ("planning_ms", "forward_ms")),
    ]


class TakenShare(ctypes.Structure):
    """Mirrors ``TakenShare`` in multistep.h."""

    _fields_ = [
        *((name, c_int32) for name in ("planned", "drafted", "accepted", "verified")),
        ("foreseen", c_double),
    ]


class StreamSteps(ctypes.Structure):
    """Mirrors ``StreamSteps`` in multistep.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("question", "chose", "chose_index")),
        ("noise", Noise),
        *((name, c_int32) for name in ("slot", "fed", "token", "length", "chose_room")),
        *((name, c_int32) for name in ("left", "room", "wait", "pause", "stop_count")),
        ("stops", c_int32 * MOST_STOPS),
        *((name, c_int32) for name in ("end", "count", "told", "unwritten")),
        *((name, c_int32) for name in ("best_count", "credits")),
        *((name, c_int32 * 2) for name in ("drafted", "decided", "accepted")),
        ("each", TakenShare * MOST_STEPS),
        ("tokens", c_int32 * (MOST_STEPS * MOST_ROWS)),
        ("best", c_int32 * MOST_ROWS),
        ("segment", c_int32 * (MOST_STEPS * PARTS)),
        ("credit", c_int32 * (MOST_STEPS * PARTS)),
    ]


class Steps(ctypes.Structure):
    """Mirrors ``Steps`` in multistep.h."""

    _fields_ = [
        *((name, c_void_p) for name in ("decoder", "streams", "planner", "prices")),
        *((name, c_void_p) for name in ("logits", "states", "interrupt")),
        ("budget_ms", c_double),
        *((name, c_int32) for name in ("count", "clock", "vocab", "hidden", "steps")),
        *((name, c_int32) for name in ("taken", "end", "wanting")),
        ("plain_ms", c_double),
        ("others_ms", c_double),
        ("each", TakenStep * MOST_STEPS),
        ("records", c_void_p),
    ]


@cache
def take_steps() -> Any:
    """``atlasd_take_steps``, or None where there is no library. It takes the address of a ``Steps``
    and returns None, or what is wrong as text. The interpreter is free meanwhile."""
    try:
        take = ctypes.CDLL(str(native().path)).atlasd_take_steps
    except RuntimeError:
        return None
    take.restype, take.argtypes = c_char_p, [c_void_p]
    return take
