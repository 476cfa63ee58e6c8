"""The online adapter: a low-rank correction of the static drafter's last hidden state.

    z = h D + L[last token] + B[token before it]        [rank]
    h' = h + z U                                        [hidden]
    logits over the draft head = h' E' + bias           E: the drafter's own embedding of its head

``U``, ``L``, ``B`` and ``bias`` start at zero, so that a fresh adapter is the static drafter to the
last bit. ``L`` and ``B`` give every token a code of its own: what follows what in a repository is
learned from a handful of rows, without touching anything else.
"""

from __future__ import annotations

import io
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
from numpy.random import default_rng  # at the start: importing it takes longer than a unit

from atlasd.draft.drafter import Float32, Int32

RANK = 32
CODES = 8192
"""Tokens share a code where there are more tokens than this."""

HEAD = 4096
"""Tokens that an adapter drafts at most, where the static drafter has them all."""


@dataclass
class Adapter:
    """Weights of one version. Arrays are float32 and owned by it."""

    head: Int32
    """Token ids that can be drafted, [head]."""
    down: Float32
    """[hidden, rank]"""
    up: Float32
    """[rank, hidden]"""
    last: Float32
    """Code of the token just read, [codes, rank]."""
    before: Float32
    """Code of the token before it, [codes, rank]."""
    bias: Float32
    """By token id, [vocab]; only the head's count."""

    @classmethod
    def fresh(cls, head: Int32, hidden: int, vocab_size: int, seed: int = 0) -> Adapter:
        """One that corrects nothing yet."""
        draw = default_rng(seed)
        codes = min(CODES, vocab_size)
        return cls(
            head.astype(np.int32),
            (draw.standard_normal((hidden, RANK)) / np.sqrt(hidden)).astype(np.float32),
            np.zeros((RANK, hidden), np.float32),
            np.zeros((codes, RANK), np.float32),
            np.zeros((codes, RANK), np.float32),
            np.zeros(vocab_size, np.float32),
        )

    def copy(self) -> Adapter:
        """Weights that further training leaves alone."""
        return Adapter(*(getattr(self, field.name).copy() for field in fields(self)))

    def bottleneck(self, states: Float32, last: Int32, before: Int32) -> Float32:
        """z [n, rank] for the static drafter's states [n, hidden] and the tokens they read."""
        codes = len(self.last)
        return states @ self.down + self.last[last % codes] + self.before[before % codes]

    def logits(self, states: Float32, last: Int32, before: Int32, embedding: Float32) -> Float32:
        """Logits [n, head]; ``embedding`` [head, hidden] holds the head's rows."""
        corrected = states + self.bottleneck(states, last, before) @ self.up
        return corrected @ embedding.T + self.bias[self.head]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(int(getattr(self, field.name).nbytes) for field in fields(self))

    def to_bytes(self) -> bytes:
        """All weights as an .npz; codes and bias in half precision."""
        out = io.BytesIO()
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        for name in ("last", "before", "bias"):
            arrays[name] = arrays[name].astype(np.float16)
        np.savez(out, **arrays)
        return out.getvalue()

    @classmethod
    def from_bytes(cls, raw: bytes, hidden: int, vocab_size: int) -> Adapter | None:
        """What ``to_bytes`` gave; None if it is damaged or of another shape."""
        try:
            with np.load(io.BytesIO(raw)) as held:
                arrays = {field.name: held[field.name] for field in fields(cls)}
        except Exception:  # zipfile, zlib and numpy have a dozen ways to say that it is damaged
            return None
        head: npt.NDArray[np.int64] = arrays["head"].astype(np.int64)
        codes = min(CODES, vocab_size)
        shapes = {
            "down": (hidden, RANK),
            "up": (RANK, hidden),
            "last": (codes, RANK),
            "before": (codes, RANK),
            "bias": (vocab_size,),
        }
        if any(arrays[name].shape != shape for name, shape in shapes.items()):
            return None
        if not len(head) or head.min() < 0 or head.max() >= vocab_size:
            return None
        if not all(np.isfinite(arrays[name]).all() for name in shapes):
            return None
        return cls(head.astype(np.int32), *(arrays[name].astype(np.float32) for name in shapes))
