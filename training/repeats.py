"""Where rows of tokens go round: how long each has been saying what it said a period before."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

PERIODS = range(1, 51)  # tokens, those of `evaluate.is_loop`

Ints = npt.NDArray[np.int64]


class Turn(NamedTuple):
    """Places of a row, its width where there is none."""

    begin: int  # the last token before those that repeat
    whole: int  # after this token the second copy is whole
    ripe: int  # after this token a row had better end: more than two copies, not yet a loop
    loop: int  # after this token it is a loop


class Turns(NamedTuple):
    """The same of rows [n]."""

    begin: Ints
    whole: Ints
    ripe: Ints
    loop: Ints


def run_lengths(tokens: Ints, period: int, start: int = 0) -> Ints:
    """tokens [n, width] -> for each token how many, it included, equal the one a period before
    without a break; tokens before `start` are compared with, but do not count."""
    first = max(period, start)
    same = np.zeros(tokens.shape, bool)
    same[:, first:] = tokens[:, first:] == tokens[:, first - period : -period]
    places = np.arange(tokens.shape[1])
    return places - np.maximum.accumulate(np.where(same, -1, places), axis=1)


def ripe(period: int) -> int:
    """Repeated tokens from which on a row had better end: of real files, 2 of 100 pieces of 1,024
    tokens get there; 10 of 100 say something of 8 tokens and more twice."""
    return max(period * 5 // 4, 14)


def whole(period: int) -> int:
    """Repeated tokens that make a second copy, or are too many for chance."""
    return max(period, 10)


def looped(period: int) -> int:
    """Repeated tokens that make a loop of `evaluate.is_loop`."""
    return max(2 * period, 30 - period)


def measures(tokens: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """tokens [n, width] -> each token's longest run over all periods, and whether one is ripe."""
    best, over = np.zeros(tokens.shape, np.int64), np.zeros(tokens.shape, bool)
    for period in PERIODS:
        if period < tokens.shape[1]:
            run = run_lengths(tokens, period)
            np.maximum(best, run, out=best)
            over |= run >= ripe(period)
    return best, over


def turns(tokens: Ints, start: int) -> Turns:
    """Where rows [n, width] that wrote what follows `start` themselves go round for good.

    Only what becomes a loop counts: a line that is said twice and then left is none.
    """
    count, width = tokens.shape
    found = Turns(*(np.full(count, width) for _ in Turns._fields))
    for period in PERIODS:
        run = run_lengths(tokens, period, start)
        reached = run >= looped(period)
        for row in np.nonzero(reached.any(axis=1))[0]:
            at = int(reached[row].argmax())
            begin = at - int(run[row, at])
            places = (begin, begin + whole(period), begin + ripe(period), at)
            for known, place in zip(found, places, strict=True):
                known[row] = min(known[row], place)
    return found
