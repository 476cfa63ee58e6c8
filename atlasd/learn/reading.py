"""The target reads, teacher-forced, what it has not generated: a block in short calls."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Protocol

import numpy as np

from atlasd.draft.drafter import Float32, Int32
from atlasd.learn.chosen import Chosen
from atlasd.learn.passages import CONTEXT, ROWS, TOP, Passage
from atlasd.learn.warmup import Block


class Target(Protocol):
    """The target, lent while no stream runs."""

    @property
    def rows(self) -> int:
        """Rows of a call that take a few milliseconds; 0: reading is too slow here."""
        ...

    def begin(self) -> bool:
        """Take a slot nobody needs; False if there is none."""
        ...

    def read(self, tokens: Int32, position: int) -> tuple[Int32, Float32, Float32 | None] | None:
        """Top choices and their log-probabilities, each [n, TOP], after tokens [n] that go to
        ``position`` on, and the states [n, hidden] that chose them, where the target keeps them.
        None if the slot was needed meanwhile."""
        ...


def read(target: Target, block: Block) -> Generator[None, None, list[Passage]]:
    """The block's passages with what the target says there, in units of one call; none if a
    request came between or no slot is free (the next block does as well)."""
    if not target.begin():
        return []
    tops, logprobs, states = list[Int32](), list[Float32](), list[Float32]()
    for at in range(0, len(block.tokens), target.rows):
        found = target.read(block.tokens[at : at + target.rows], at)
        if found is None:
            return []
        tops.append(found[0])
        logprobs.append(found[1])
        if found[2] is not None:
            states.append(found[2])
        yield
    chose = np.concatenate(states) if states else None
    return list(passages_of(block, np.concatenate(tops), np.concatenate(logprobs), chose))


def passages_of(
    block: Block, top: Int32, logprobs: Float32, states: Float32 | None = None
) -> Iterator[Passage]:
    """A block that was read, as passages; ``top`` and ``logprobs`` [n, TOP] and ``states``
    [n, hidden] are of all its rows."""
    assert top.shape == logprobs.shape == (len(block.tokens), TOP)
    for first in range(block.first, len(block.tokens), ROWS):
        end = min(first + ROWS, len(block.tokens))
        begin = max(0, first - CONTEXT)
        yield Passage(
            block.tokens[begin:end],
            first - begin,
            top[first:end].copy(),
            logprobs[first:end].astype(np.float16),
            # A row read the token that the state before it chose.
            None if states is None else Chosen.of(_before(states, first, end)),
        )


def _before(states: Float32, first: int, end: int) -> Float32:
    if first:
        return states[first - 1 : end - 1]
    return np.concatenate([np.zeros_like(states[:1]), states[: end - 1]])
