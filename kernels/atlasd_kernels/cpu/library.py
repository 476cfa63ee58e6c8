"""Finding and loading the native library, and its C interface as ctypes declares it."""

from __future__ import annotations

import ctypes
import logging
import os
from ctypes import (
    POINTER,
    c_char_p,
    c_double,
    c_float,
    c_int32,
    c_int64,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import cache
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

VERSION = 9
"""Of everything that Python and the library must agree on: signatures, structures and the layout of
packed weights. Raised here and in capi.cpp whenever one of them changes, and when step costs do,
which are kept under it."""


class Config(ctypes.Structure):
    """Mirrors ``Config`` in decoder.h."""

    _fields_ = [
        ("vocab", c_int32),
        ("hidden", c_int32),
        ("layers", c_int32),
        ("heads", c_int32),
        ("kv_heads", c_int32),
        ("head_dim", c_int32),
        ("intermediate", c_int32),
        ("slots", c_int32),
        ("slot_tokens", c_int32),
        ("threads", c_int32),
        ("qk_norm", c_int32),
        ("half_cache", c_int32),
        ("format", c_int32),
        ("head_format", c_int32),
        ("embedding_source", c_int32),
        ("rms_eps", c_float),
        ("isa", c_char_p),
        ("windows", c_void_p),
        ("cos", c_void_p),
        ("sin", c_void_p),
        ("weights", c_void_p),
        ("offsets", c_void_p),
    ]


class Packing(ctypes.Structure):
    """Mirrors ``Packing`` in pack.h."""

    _fields_ = [
        ("format", c_int32),
        ("source", c_int32),
        ("values", c_void_p),
        ("rows", c_int64),
        ("k", c_int64),
        ("data", c_void_p),
        ("start", c_int64),
        ("paired", c_int32),
    ]


class Noise(ctypes.Structure):
    """Mirrors ``Noise`` in kernels.h."""

    _fields_ = [
        ("temperature", c_float),
        ("seed", c_uint64),
        ("choice", c_uint32),
        ("output_index", c_uint32),
    ]


class CorrectionWeights(ctypes.Structure):
    """Mirrors ``CorrectionWeights`` in correction.h."""

    _fields_ = [
        ("count", c_int64),
        ("rank", c_int64),
        ("codes", c_int64),
        ("tokens", c_void_p),
        ("down", c_void_p),
        ("up", c_void_p),
        ("last", c_void_p),
        ("before", c_void_p),
        ("bias", c_void_p),
    ]


class Profile(ctypes.Structure):
    """Mirrors ``Profile`` in decoder.h: nanoseconds since the decoder was made."""

    _fields_ = [("matmul", c_int64), ("attention", c_int64), ("other", c_int64)]


Array = c_void_p
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "version": (c_int32, []),
    "measure_threads": (c_int32, []),
    "read_bandwidth": (c_double, [c_int32, c_int64]),
    "isa": (c_char_p, [c_int32]),
    "isa_note": (c_char_p, []),
    "create": (c_char_p, [POINTER(Config), POINTER(c_void_p)]),
    "destroy": (None, [c_void_p]),
    "forward": (c_char_p, [c_void_p, Array, Array, Array, c_int64, Array, c_int64, Array]),
    "draft": (
        c_char_p,
        [
            *[c_void_p, c_void_p, c_int32, Array, c_int64, c_int32, c_int32, Array, c_int64],
            *[c_float, POINTER(Noise), c_int32, Array, Array, POINTER(c_int64)],
        ],
    ),
    "set_carry": (None, [c_void_p, Array]),
    "set_smear": (c_char_p, [c_void_p, Array]),
    "keep_states": (None, [c_void_p, Array]),
    "correction": (c_char_p, [c_void_p, POINTER(CorrectionWeights), POINTER(c_void_p)]),
    "correction_free": (None, [c_void_p]),
    "states": (c_char_p, [c_void_p, *[Array] * 3, c_int64, *[Array] * 2]),
    "reduce_head": (c_char_p, [c_void_p, Array, c_int64]),
    "copy_prefix": (None, [c_void_p, c_int32, c_int32, c_int32]),
    "slot_bytes": (c_int64, [c_void_p]),
    "scratch_bytes": (c_int64, [c_void_p]),
    "logits_ld": (c_int64, [c_void_p]),
    "isa_of": (c_char_p, [c_void_p]),
    "profile": (None, [c_void_p, POINTER(Profile)]),
    "set_profiling": (None, [c_void_p, c_int32]),
    "panel_bytes": (c_int64, [c_int32, c_int64]),
    "pack": (None, [POINTER(Packing), c_int32]),
    "kept_format": (c_int32, [c_char_p]),
    "shorten": (c_int64, [c_int32, Array, c_int64, c_int64, Array, c_int32]),
    "unpack_column": (None, [c_int32, Array, c_int64, c_int64, Array]),
    "checksum": (c_uint64, [Array, c_int64]),
    "choose": (None, [Array, c_int64, c_int64, c_int64, Array, Array]),
    "top_k": (None, [Array, c_int64, c_int64, c_int64, c_int32, Array, Array, Array]),
}


class NativeLibrary:
    """The loaded library; its functions are attributes without the ``atlasd_`` prefix."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(self._library, f"atlasd_{name}")
            function.restype, function.argtypes = result, arguments
            setattr(self, name, function)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


def check(error: bytes | None) -> None:
    """Raise what a native call returned as text."""
    if error is not None:
        raise ValueError(error.decode())


def _candidates() -> list[Path]:
    if forced := os.environ.get("ATLASD_NATIVE_LIBRARY"):
        return [Path(forced)]
    here = Path(__file__).parent
    return [p for p in sorted(here.glob("_native*.so")) if "_native." in p.name]


@cache
def _load() -> tuple[NativeLibrary | None, str]:
    reason = "it was not built: no C++ compiler when atlasd was installed"
    for path in _candidates():
        try:
            library = NativeLibrary(path)
        except (OSError, AttributeError) as error:
            reason = f"{path.name} does not load: {error}"
            continue
        if (found := library.version()) == VERSION:
            if note := library.isa_note():
                log.warning("%s; atlasd does without", note.decode())
            return library, ""
        reason = f"{path.name} is version {found}, this package needs {VERSION}: build it again"
    return None, reason


def available() -> tuple[bool, str]:
    """Whether the native library loads here, and the reason if it does not."""
    library, reason = _load()
    return library is not None, reason


def native() -> NativeLibrary:
    """The native library; raises RuntimeError with the reason where there is none."""
    library, reason = _load()
    if library is None:
        raise RuntimeError(f"the CPU kernels cannot be used: {reason}")
    return library


def instruction_sets() -> list[str]:
    """Code paths this processor can run, best first; the last is always ``portable``."""
    library = native()
    names: list[str] = []
    while (name := library.isa(len(names))) is not None:
        names.append(name.decode())
    return names
