"""How much the votes for the next token count.

The mass of a vote is that of its kind, times its share, times factors for what the kind does not
tell: who votes for the same token, how early the place was found, how lately its text changed. What
stands behind a token adds up, and 1 is the mass of "none of them". All of it is learned online from
the verified text: of this mixture, the gradient of the log probability of what came.
"""

from __future__ import annotations

from math import exp
from typing import NamedTuple

from atlasd.draft.recycle import VOTE_KINDS
from atlasd.draft.successors import KINDS

PLACE_KINDS = 1024
LOST = 9
"""Rank of what a pointer guesses that has lost its place. The others' are the order in which they
were found: the longest match first, the newest of equals."""
AGES = 16

_STILL = 0.003
"""A gradient that moves nothing."""

_TABLES = VOTE_KINDS // KINDS
_AGREEING_PLACES, _AGREEING_TABLES = 3, 4
_COMPANY = VOTE_KINDS + PLACE_KINDS
_RANK = _COMPANY + (_TABLES + 1) * (_AGREEING_PLACES + 1) * (_AGREEING_TABLES + 1)
_AGE = _RANK + LOST + 1

_RECYCLE_RATES = (
    *(0.3, 0.3, 0.3, 0.42, 0.23, 0.59, 0.2, 0.73, 0.27, 0.84, 0.25, 0.85, 0.25, 0.85, 0.25, 0.85),
    *(0.15, 0.12, 0.15, 0.15, 0.1, 0.25, 0.25, 0.25),
    *(0.19, 0.19, 0.3, 0.27, 0.21, 0.55, 0.18, 0.63, 0.17, 0.69, 0.21, 0.68, 0.21, 0.73, 0.39),
    *(0.64, 0.09, 0.06, 0.1, 0.1, 0.16, 0.1, 0.07, 0.11),
    *(0.11, 0.24, 0.11, 0.16, 0.11, 0.24, 0.14, 0.4, 0.15, 0.6, 0.13, 0.63, 0.15, 0.66, 0.25, 0.74),
    *(0.07, 0.1, 0.11, 0.08, 0.09, 0.12, 0.12, 0.09),
    *(0.2, 0.3, 0.2, 0.45, 0.2, 0.6, 0.2, 0.6, 0.2, 0.7, 0.24, 0.72, 0.22, 0.71, 0.3, 0.65),
    *(0.26, 0.26, 0.15, 0.2, 0.16, 0.15, 0.14, 0.14),
)
"""How often votes of ``Recycle`` are right before anything is known."""

_PLACE_RATES = (
    *(0.02, 0.35, 0.4, 0.3, 0.42, 0.49, 0.55, 0.65, 0.7, 0.76, 0.83, 0.85),
    *(0.88, 0.9, 0.9, 0.9),
)
"""The same of places, by match length."""
_FOLLOWED_RATES = (
    *(0.02, 0.35, 0.51, 0.62, 0.72, 0.73, 0.73, 0.75, 0.76, 0.78, 0.83, 0.88),
    *(0.89, 0.89, 0.89, 0.89),
)
"""The same of places that continue the last draft."""


class Vote(NamedTuple):
    """For ``token`` to come next."""

    token: int
    kind: int
    share: float = 1.0
    """Of the kind's mass."""
    rank: int = -1
    """Of the place that votes; -1: a table."""
    age: int = 0
    """Bits of the number of changes to the index since the place's text changed."""


class Masses:
    """Mass of each kind of vote, then the factors, which begin at 1; and how often each was
    learned from."""

    def __init__(self) -> None:
        rates = [*_RECYCLE_RATES, *map(_place_rate, range(PLACE_KINDS))]
        self.value = [rate / (1.0 - rate) for rate in rates]
        self.value += [1.0] * (_AGE + AGES - _COMPANY)
        self.seen = [0.0] * len(self.value)

    def weigh(self, votes: list[Vote]) -> list[float]:
        """The mass of each vote."""
        value = self.value
        weights = []
        for vote, factors in zip(votes, _factors(votes), strict=True):
            weight = value[vote.kind] * vote.share
            for factor in factors:
                weight *= value[factor]
            weights.append(weight)
        return weights

    def learn(self, votes: list[Vote], token: int) -> None:
        """``token`` came; ``votes`` are all that were cast."""
        weights = self.weigh(votes)
        total, right = 1.0, 0.0
        for vote, weight in zip(votes, weights, strict=True):
            total += weight
            if vote.token == token:
                right += weight
        for vote, weight, factors in zip(votes, weights, _factors(votes), strict=True):
            gradient = -weight / total
            if vote.token == token:
                gradient += weight / right
            if -_STILL < gradient < _STILL:
                continue
            self._move(vote.kind, gradient, 0.01, 200.0)
            for factor in factors:
                self._move(factor, gradient, 0.4, 2.5)

    def _move(self, number: int, gradient: float, least: float, most: float) -> None:
        self.seen[number] = seen = min(self.seen[number] + 1.0, 150.0)
        moved = self.value[number] * exp(gradient * 8.0 / (8.0 + seen))
        self.value[number] = least if moved < least else most if moved > most else moved


def _place_rate(kind: int) -> float:
    if kind & 16:
        return 0.2 if kind & 2 else 0.06
    return (_FOLLOWED_RATES if kind & 2 else _PLACE_RATES)[kind >> 6]


def _factors(votes: list[Vote]) -> list[tuple[int, ...]]:
    """The numbers of each vote's factors."""
    places: dict[int, int] = {}
    tables: dict[int, int] = {}
    for vote in votes:
        agreeing = tables if vote.rank < 0 else places
        agreeing[vote.token] = agreeing.get(vote.token, 0) + 1
    found: list[tuple[int, ...]] = []
    for vote in votes:
        source = vote.kind // KINDS if vote.rank < 0 else _TABLES
        company = source * (_AGREEING_PLACES + 1)
        company += min(_AGREEING_PLACES, places.get(vote.token, 0))
        company *= _AGREEING_TABLES + 1
        company += _COMPANY + min(_AGREEING_TABLES, tables.get(vote.token, 0))
        if vote.rank < 0:
            found.append((company,))
        else:
            found.append((company, _RANK + vote.rank, _AGE + vote.age))
    return found
