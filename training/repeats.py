"""Where rows of tokens go round: how long each has been saying what it said a period before."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

PERIODS = range(1, 51)  # tokens, those of `evaluate.is_loop`
LEAST = 8  # repeated tokens: fewer are no circle yet, whatever their period

Ints = npt.NDArray[np.int64]


class Turns(NamedTuple):
    """Places in rows [n], the row's width where there is none."""

    twice: Ints  # after this token two copies are complete: here a row had better end
    loop: Ints  # after this token it is a loop


def run_lengths(tokens: Ints, period: int, start: int = 0) -> Ints:
    """tokens [n, width] -> for each token how many, it included, equal the one a period before
    without a break; tokens before `start` are compared with, but do not count."""
    first = max(period, start)
    same = np.zeros(tokens.shape, bool)
    same[:, first:] = tokens[:, first:] == tokens[:, first - period : -period]
    places = np.arange(tokens.shape[1])
    return places - np.maximum.accumulate(np.where(same, -1, places), axis=1)


def longest_run(tokens: Ints) -> Ints:
    """tokens [n, width] -> the longest of their run lengths over all periods."""
    best = np.zeros(tokens.shape, np.int64)
    for period in PERIODS:
        np.maximum(best, run_lengths(tokens, period), out=best)
    return best


def turns(tokens: Ints, start: int) -> Turns:
    """Where rows [n, width] that wrote what follows `start` themselves go round for good.

    Only what becomes a loop counts: a line that is said twice and then left is none.
    """
    count, width = tokens.shape
    twice, loop = np.full(count, width), np.full(count, width)
    for period in PERIODS:
        run = run_lengths(tokens, period, start)
        looped = run >= max(2 * period, 30 - period)
        for row in np.nonzero(looped.any(axis=1))[0]:
            at = int(looped[row].argmax())
            begin = at - int(run[row, at])
            twice[row] = min(twice[row], begin + max(period, LEAST))
            loop[row] = min(loop[row], at)
    return Turns(twice, loop)
