"""What the engine asks of a model: rows in, logits out. Torch, the CPU kernels and the GPU
kernels each serve this one interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


class Decoder(Protocol):
    """A decoder-only transformer with its KV cache cut into slots.

    A *row* is one (slot, position, token). Exactness rests on one contract: the bits of a row's
    logits depend only on the tokens of its slot up to its position, never on how many rows the
    call has, which rows are its neighbours, or what was cached, as long as rows that were
    prefilled stay prefilled (see ``prefill_chunk``).
    """

    vocab_size: int
    slots: int
    slot_tokens: int
    """Positions a slot holds."""

    prefill_chunk: int
    """Prompts are prefilled in chunks of this many positions that start at its multiples, and
    reuse is cut back to a multiple of it. 1 means that prefilled and decoded rows have the same
    bits (own kernels): any written row may be reused, also as prompt."""

    prefill_rows: int
    """Rows of one prefill call that other streams should at most have to wait for; a multiple of
    ``prefill_chunk``."""

    def bucket(self, rows: int) -> int:
        """The row count that ``rows`` decode rows are padded to: rows up to there are free."""
        ...

    def forward(
        self, tokens: Int32, slots: Int32, positions: Int32, wanted: Int32, *, prefill: bool = False
    ) -> Float32:
        """Run rows [R] and return logits [L, vocab] of the rows whose indices are ``wanted``.

        There is at least one; rows of one slot come in ascending positions. Keys and values are
        written to the slots before attention, so a row sees the earlier rows of its slot in the
        same call. Rejecting a draft is writing over it later. The array returned is valid until
        the next call.
        """
        ...

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Copy keys and values of positions [0, length) from one slot to another."""
        ...

    def memory_bytes(self) -> dict[str, int]:
        """Bytes held, by purpose: ``weights``, ``slots``, ``scratch`` and, on a GPU, ``graphs``."""
        ...

    def close(self) -> None:
        """Free everything; the decoder cannot be used afterwards."""
        ...


def check_inside(decoder: Decoder, slots: Int32, positions: Int32) -> None:
    """Raise ValueError if a row lies outside of the decoder's slots."""
    if positions.max() >= decoder.slot_tokens or slots.max() >= decoder.slots:
        raise ValueError("a row lies outside of the slots")


def kept_states(decoder: Decoder) -> Float32 | None:
    """The final states [L, hidden] of the rows wanted in the last call, valid until the next, of a
    decoder that keeps them; else None."""
    states: Float32 | None = getattr(decoder, "states", None)
    return states


@dataclass(frozen=True)
class RowNoise:
    """How the token after a row is chosen: temperature 0 is argmax, anything else argmax with the
    noise of ``atlasd_kernels.noise``."""

    temperature: float = 0.0
    seed: int = 0
    choice: int = 0
    output_index: int = 0


@dataclass(frozen=True)
class Wanted:
    """What a step is to decide."""

    rows: Int32
    """Indices of the rows whose next tokens are wanted."""

    noise: Sequence[RowNoise]
    """Of each of these rows."""

    parts: Sequence[tuple[int, int]]
    """(first, count) of ``rows``: a part's draft is the tokens of its rows after the first."""

    meanwhile: Callable[[], None] = lambda: None
    """Called once the step is on its way: work that needs nothing of its result."""


@dataclass(frozen=True)
class Verified:
    """What a step decided; arrays are valid until the next call."""

    tokens: Int32
    """Per wanted row, the target's own next token; -1 where the model produced no number."""

    accepted: Int32
    """Per part, how many drafted tokens the target agrees with."""

    top_ids: Int32
    """Per wanted row, the likeliest tokens [rows, K], best first."""

    top_logprobs: Float32


class DecidingDecoder(Decoder, Protocol):
    """A decoder that also chooses and accepts where it computes, so that a step hands back a few
    numbers instead of its logits. What it chooses is what ``engine.sampling.choose_row`` would."""

    def verify(self, tokens: Int32, slots: Int32, positions: Int32, wanted: Wanted) -> Verified:
        """A decoding step of up to 64 rows, decided as ``wanted`` says."""
        ...
