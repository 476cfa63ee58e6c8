"""Whether one version of the drafter is better than another: milliseconds for the same rows.

On rows that no version was trained on, the steps that each would have needed are played through:
from a row on, a chain is accepted up to its first miss, and the step after it starts behind the
token the target put there. A step costs what steps of so many rows were measured to cost here,
plus its drafting. Lookahead is the best of a few for each version, none (plain decoding) included.

A version is promoted only if the lower confidence bound of what it saves is positive; one that no
longer saves anything is rolled back.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

LOOKAHEADS = (0, 1, 2, 3, 4, 6, 8)

SURE = 3.0
"""Standard errors that a gain must be above zero. Many candidates are looked at on nearly the same
rows, and each look is a chance to be wrong."""

LEAST = 12
"""Passages without which nothing is decided."""

WATCHED = 24
"""Passages over which a promoted version must go on paying."""

Bools = npt.NDArray[np.bool_]
Float64 = npt.NDArray[np.float64]

StepMs = Callable[[int], float]
"""Milliseconds of a step by its rows."""


def play(hits: Bools, step_ms: StepMs, token_ms: float) -> Float64:
    """Milliseconds for a passage's rows, by lookahead. ``hits`` [rows]: where the drafter says what
    the target chose; ``token_ms``: drafting one token."""
    rows = len(hits)
    run = np.zeros(rows + 1, np.int32)
    for at in range(rows - 1, -1, -1):
        run[at] = run[at + 1] + 1 if hits[at] else 0
    spent = np.zeros(len(LOOKAHEADS))
    for index, lookahead in enumerate(LOOKAHEADS):
        at = steps = 0
        while at < rows:
            at += 1 + min(int(run[at]), lookahead)
            steps += 1
        # The last step may reach beyond the passage: it counts by the share that lies inside.
        spent[index] = (steps * rows / at) * (step_ms(1 + lookahead) + lookahead * token_ms)
    return spent


def lower_bound(first: Sequence[Float64], second: Sequence[Float64]) -> float:
    """Of what the second saves against the first, as a share of the first's time: mean less
    ``SURE`` standard errors. Rows are ``play``'s, of the same passages in the same order."""
    if len(first) < LEAST:
        return -math.inf
    one, two = _best(first), _best(second)
    saved = one - two
    error = saved.std(ddof=1) / math.sqrt(len(saved))
    return float((saved.mean() - SURE * error) / one.mean())


def still_gains(first: Sequence[Float64], second: Sequence[Float64]) -> bool:
    """Whether the second is no worse on the newest passages alone: what was good before a shift is
    not what is wanted after it."""
    newest = slice(-LEAST, None)
    return float(_best(second[newest]).sum()) <= float(_best(first[newest]).sum())


def _best(played: Sequence[Float64]) -> Float64:
    """Milliseconds per passage at the lookahead that is best over all of them."""
    table = np.array(played)
    best: Float64 = table[:, int(table.sum(axis=0).argmin())]
    return best


class Watch:
    """How the version in use, and the one before it, do on passages as they come."""

    def __init__(self) -> None:
        self._static: deque[Float64] = deque(maxlen=WATCHED)
        self._live: deque[Float64] = deque(maxlen=WATCHED)
        self._good: deque[Float64] = deque(maxlen=WATCHED)

    def note(self, static: Float64, live: Float64, good: Float64) -> None:
        """A passage came that no version has seen; a version that is not there counts as the
        static drafter."""
        self._static.append(static)
        self._live.append(live)
        self._good.append(good)

    @property
    def pays(self) -> bool:
        """False once the version in use saves nothing against the static drafter."""
        return len(self._live) < LEAST or _total(self._live) <= _total(self._static)

    @property
    def good_pays(self) -> bool:
        """Whether the one before it would."""
        return len(self._good) >= LEAST and _total(self._good) < _total(self._static)

    @property
    def good_is_back(self) -> bool:
        """Whether the one before it surely would: the text is again of the kind it was made for."""
        return lower_bound(list(self._static), list(self._good)) > 0.0


def _total(played: Sequence[Float64]) -> float:
    return float(_best(list(played)).sum())
