"""The native text drafter as ctypes sees it; ``atlasd.draft.native`` builds on it."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_double, c_int32, c_int64, c_uint8, c_void_p
from functools import cache
from typing import Any

from atlasd_kernels.cpu.library import native

ORDERS = 4
FEATURES = 5
MAX_DRAFT = 64


class Arrays(ctypes.Structure):
    """Mirrors ``Arrays`` in text.h."""

    _fields_ = [
        ("tokens", c_void_p),
        ("run_of", c_void_p),
        ("links", c_void_p * ORDERS),
        ("heads", c_void_p * ORDERS),
        ("masks", c_int64 * ORDERS),
        ("run_start", c_void_p),
        ("run_piece", c_void_p),
        ("piece_start", c_void_p),
        ("piece_stop", c_void_p),
        ("piece_next", c_void_p),
        ("piece_sibling", c_void_p),
        ("piece_segment", c_void_p),
        ("segment_kind", c_void_p),
        ("segment_repository", c_void_p),
        ("segment_updated", c_void_p),
        ("single", c_void_p),
        ("pair", c_void_p),
        ("line", c_void_p),
        ("ends_line", c_void_p),
    ]


class Drafted(ctypes.Structure):
    """Mirrors ``Drafted`` in text.h."""

    _fields_ = [
        ("count", c_int32),
        ("segment", c_int32),
        ("tokens", c_int32 * MAX_DRAFT),
        ("probability", c_double * MAX_DRAFT),
        ("from_place", c_uint8 * MAX_DRAFT),
        ("features", (c_uint8 * FEATURES) * MAX_DRAFT),
    ]


class Counters(ctypes.Structure):
    """Mirrors ``Counters`` in text.h: tokens proposed and right, first tokens and right."""

    _fields_ = [
        ("proposed", c_int64),
        ("foreseen", c_int64),
        ("first", c_int64),
        ("first_right", c_int64),
    ]


_SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "new": (c_void_p, []),
    "free": (None, [c_void_p]),
    "forget_rules": (None, [c_void_p]),
    "attach": (None, [c_void_p, POINTER(Arrays)]),
    "offset": (c_int32, [c_void_p, c_double]),
    "state": (c_void_p, [c_void_p, c_int32, POINTER(c_int64)]),
    "counters": (None, [c_void_p, POINTER(Counters)]),
    "begin": (c_void_p, [c_void_p, c_void_p, *[c_int32] * 5]),
    "end": (None, [c_void_p, c_void_p]),
    "tail": (None, [c_void_p, c_int32, c_int32]),
    "propose": (
        None,
        [c_void_p, c_void_p, c_void_p, c_int32, c_int32, c_double, c_int32, POINTER(Drafted)],
    ),
    "insert": (None, [c_void_p, c_void_p, c_int32, c_int32, c_int32]),
    "append": (c_int32, [c_void_p, c_void_p, c_void_p, c_int32]),
    "observe": (None, [c_void_p, c_void_p, c_void_p, c_int32]),
}


class TextLibrary:
    """The functions of text_capi.cpp without their ``atlasd_text_`` prefix."""

    def __init__(self, library: ctypes.CDLL) -> None:
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, f"atlasd_text_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


@cache
def text_library() -> TextLibrary | None:
    """The native text drafter, or None where there is no library."""
    try:
        # Calls are far shorter than giving up the interpreter lock would take.
        return TextLibrary(ctypes.PyDLL(str(native().path)))
    except RuntimeError:
        return None
