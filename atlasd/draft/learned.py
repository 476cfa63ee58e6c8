"""What drafting has learned, as bytes for the store: shared by all, and per repository.

A payload of another format or tokenizer is ignored: its token hashes would mean other tokens.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

FORMAT = 1

Float64 = npt.NDArray[np.float64]


@dataclass
class SourceState:
    """The confidence of one source."""

    features: int
    weights: Float64
    information: Float64
    bias: list[float]
    """Value, information, trend and cap."""
    offsets: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    """By (``language`` or ``repository``, its name): value and information."""


@dataclass
class LearnedState:
    """All of it."""

    masses: Float64
    seen: Float64
    sources: dict[str, SourceState]


def pack(state: LearnedState, fingerprint: str) -> dict[str | None, bytes]:
    """Payloads by repository; None is what all repositories share."""
    shared: dict[str, Any] = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "masses": _floats(state.masses),
        "seen": _floats(state.seen),
        "sources": {
            name: {
                "features": source.features,
                "weights": _floats(source.weights),
                "information": _floats(source.information),
                "bias": source.bias,
                "languages": {
                    value: learned
                    for (kind, value), learned in source.offsets.items()
                    if kind == "language"
                },
            }
            for name, source in state.sources.items()
        },
    }
    local: dict[str, dict[str, tuple[float, float]]] = {}
    for name, source in state.sources.items():
        for (kind, value), learned in source.offsets.items():
            if kind == "repository" and value:
                local.setdefault(value, {})[name] = learned
    payloads: dict[str | None, bytes] = {None: msgspec.msgpack.encode(shared)}
    for repository, offsets in local.items():
        payloads[repository] = msgspec.msgpack.encode(
            {"format": FORMAT, "fingerprint": fingerprint, "offsets": offsets}
        )
    return payloads


def unpack(payload: bytes, fingerprint: str) -> dict[str, Any] | None:
    """A payload's content, or None if it is damaged or belongs to something else."""
    try:
        content = msgspec.msgpack.decode(payload)
    except msgspec.DecodeError:
        return None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return None
    return content if content.get("fingerprint") == fingerprint else None


def unpack_shared(content: dict[str, Any]) -> LearnedState:
    """What ``pack`` wrote for all repositories."""
    return LearnedState(
        _array(content["masses"]),
        _array(content["seen"]),
        {
            name: SourceState(
                source["features"],
                _array(source["weights"]),
                _array(source["information"]),
                list(source["bias"]),
                {("language", value): tuple(v) for value, v in source["languages"].items()},
            )
            for name, source in content["sources"].items()
        },
    )


def _floats(values: Float64) -> bytes:
    return values.astype("<f4").tobytes()


def _array(raw: bytes) -> Float64:
    return np.frombuffer(raw, "<f4").astype(np.float64)
