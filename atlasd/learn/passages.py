"""What is learned from: short texts with what the target chose at each of their rows."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlasd.draft.drafter import Int32
from atlasd.draft.states import States
from atlasd.learn.chosen import Chosen

Float16 = npt.NDArray[np.float16]

TOP = 4
"""Choices kept per row."""

CONTEXT = 128
"""Tokens before the first row, so that a drafter's state there is what it would be in use."""

ROWS = 64
"""Rows of one passage: longer texts become several."""


@dataclass(frozen=True, eq=False)
class Passage:
    """Row i read ``tokens[first + i]``; ``top[i]`` is what the target says follows it."""

    tokens: Int32
    """[n]"""
    first: int
    """At least 1: every row has a token before the one it read."""
    top: Int32
    """The target's choices, best first, [rows, TOP]; -1: not known."""
    logprobs: Float16
    """Their log-probabilities, [rows, TOP]; not a number: not known."""
    chosen: Chosen | None = None
    """The target's states that chose what the rows read, where the drafter carries them."""

    @property
    def nbytes(self) -> int:
        held = self.tokens.nbytes + self.top.nbytes + self.logprobs.nbytes
        return held + (self.chosen.nbytes if self.chosen is not None else 0)

    @property
    def rows(self) -> int:
        return len(self.top)

    @property
    def read_by(self) -> tuple[Int32, Int32]:
        """The token each row read, and the one before it; each [rows]."""
        end = self.first + self.rows
        return self.tokens[self.first : end], self.tokens[self.first - 1 : end - 1]


def of_stream(
    tokens: Sequence[int], prompt_length: int, states: States | None = None
) -> Iterator[Passage]:
    """Passages of a finished stream: what follows a row is what the target chose there."""
    start = max(prompt_length - 1, 1)
    for first in range(start, len(tokens) - 1, ROWS):
        rows = min(ROWS, len(tokens) - 1 - first)
        begin = max(0, first - CONTEXT)
        text = np.array(tokens[begin : first + rows + 1], np.int32)
        top = np.full((rows, TOP), -1, np.int32)
        top[:, 0] = text[-rows:]
        known = states.of(first, first + rows) if states is not None else None
        yield Passage(
            text[:-1],
            first - begin,
            top,
            np.full((rows, TOP), np.nan, np.float16),
            None if known is None else Chosen.of(known),
        )


def pack(passages: Iterable[Passage]) -> bytes:
    """Passages as an .npz."""
    held = list(passages)
    chosen = [p.chosen for p in held if p.chosen is not None]
    width = chosen[0].values.shape[1] if chosen else 0
    out = io.BytesIO()
    np.savez(  # compressing takes twenty times as long
        out,
        sizes=np.array(
            [[len(p.tokens), p.first, p.rows, p.chosen is not None] for p in held], np.int32
        ).reshape(-1, 4),
        tokens=np.concatenate([np.empty(0, np.int32), *(p.tokens for p in held)]),
        top=np.concatenate([np.empty((0, TOP), np.int32), *(p.top for p in held)]),
        logprobs=np.concatenate([np.empty((0, TOP), np.float16), *(p.logprobs for p in held)]),
        values=np.concatenate([np.empty((0, width), np.int8), *(c.values for c in chosen)]),
        scales=np.concatenate([np.empty(0, np.float32), *(c.scales for c in chosen)]),
    )
    return out.getvalue()


def unpack(raw: bytes, vocab_size: int) -> list[Passage] | None:
    """What ``pack`` gave, or None if it is damaged or of another vocabulary."""
    names = ("sizes", "tokens", "top", "logprobs", "values", "scales")
    try:
        with np.load(io.BytesIO(raw)) as held:
            sizes, tokens, top, logprobs, values, scales = (held[name] for name in names)
    except Exception:  # zipfile, zlib and numpy have a dozen ways to say that a file is damaged
        return None
    if sizes.ndim != 2 or sizes.shape[1] != 4 or (sizes < 0).any():
        return None
    if len(tokens) != sizes[:, 0].sum() or not len(top) == len(logprobs) == sizes[:, 2].sum():
        return None
    if not len(values) == len(scales) == (sizes[:, 2] * sizes[:, 3]).sum():
        return None
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        return None
    if top.shape[1:] != (TOP,) or (len(top) and not -1 <= top.min() <= top.max() < vocab_size):
        return None
    passages, token, row, state = list[Passage](), 0, 0, 0
    for size, first, rows, known in sizes.tolist():
        if not 1 <= first <= size - rows:
            return None
        chosen = Chosen(values[state : state + rows], scales[state : state + rows])
        passages.append(
            Passage(
                tokens[token : token + size].astype(np.int32),
                first,
                top[row : row + rows].astype(np.int32),
                logprobs[row : row + rows].astype(np.float16),
                chosen if known else None,
            )
        )
        token, row, state = token + size, row + rows, state + rows * known
    return passages
