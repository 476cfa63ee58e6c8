"""Native planning of drafts as ctypes sees it; ``atlasd.draft.planner`` builds on it."""

from __future__ import annotations

import ctypes
from ctypes import c_double, c_int32, c_uint8, c_void_p
from functools import cache
from typing import Any

from atlasd_kernels.cpu.library import native

MOST_STREAMS = 64
MOST_ROWS = 256
PARTS = 4


class Question(ctypes.Structure):
    """Mirrors ``Question`` in plan.h."""

    _fields_ = [
        ("stream", c_void_p),
        ("number", c_int32),
        ("limit", c_int32),
        ("brought", c_double),
        ("worth", c_double),
    ]


class Prices(ctypes.Structure):
    """Mirrors ``Prices`` in plan.h."""

    _fields_ = [
        ("milliseconds", c_void_p),
        ("room", c_int32),
        ("others", c_int32),
        ("least_reach", c_double),
        ("worth_asking", c_double),
    ]


class Outcome(ctypes.Structure):
    """Mirrors ``Outcome`` in plan.h."""

    _fields_ = [
        ("record", c_void_p),
        ("record_bytes", c_int32),
        ("rows", c_int32),
        ("lookahead", c_int32 * MOST_STREAMS),
        ("foreseen", c_double * MOST_STREAMS),
        ("tokens", c_int32 * MOST_ROWS),
        ("origin", c_uint8 * MOST_ROWS),
    ]


class Settled(ctypes.Structure):
    """Mirrors ``Settled`` in plan.h."""

    _fields_ = [
        ("credits", c_int32),
        ("segment", c_int32 * PARTS),
        ("credit", c_int32 * PARTS),
    ]


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "new": (c_void_p, [c_void_p]),
    "free": (None, [c_void_p]),
    "outcome": (c_void_p, [c_void_p]),
    "plan": (c_int32, [c_void_p, c_void_p, c_int32, c_void_p, c_int32, c_int32]),
    "offer": (None, [c_void_p, c_void_p, c_int32, c_void_p, c_void_p, c_int32]),
    "settle": (
        c_int32,
        [c_void_p, c_void_p, c_void_p, *[c_int32] * 3, c_void_p, c_int32, c_void_p],
    ),
    "learn": (None, [c_void_p, c_void_p, c_void_p, c_int32, c_void_p, c_int32]),
}


class PlanLibrary:
    """The functions of plan_capi.cpp without their ``atlasd_plan_`` prefix."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, f"atlasd_plan_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@cache
def plan_library() -> PlanLibrary | None:
    """Native planning, or None where there is no library."""
    try:
        # Calls are far shorter than giving up the interpreter lock would take.
        return PlanLibrary(ctypes.PyDLL(str(native().path)))
    except RuntimeError:
        return None
