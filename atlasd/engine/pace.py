"""Whether asking the drafters pays for a stream: planning takes time too.

A step of a small model takes a millisecond or two, so even a look-up that finds nothing can cost
more than two per cent. Where drafting has cost more than it gained it rests for a few steps,
longer each time, and is back at once when a draft holds.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from atlasd.draft.drafter import StreamView

BUDGET = 0.003
"""Share of a plain step's time that drafting in vain may take, wasted rows included."""

CREDIT = 0.25
"""Of a plain step's time, what gains may count for at most: text that was easy says little of the
text behind it, and buys a dozen attempts there, not a hundred."""

FIRST_REST = 8
"""Steps before the first attempt in a stream, where attempts have lost in those before it: taking
up a stream costs as much as a few attempts, which a short one would never earn."""

EARLY = 8
"""Of so many streams of a sort in a row one is tried that early, the others after ``LATE``: trying
a stream of 16 tokens costs an eighth of it, which may be two per cent of all."""

LATE = 64
"""Steps before the first attempt in the other streams: taking one up and ending it costs as much as
a step or two."""

LONGEST_REST = 24
"""Steps; text changes its nature within a few dozen tokens."""

PROBE = 2
"""Tokens that are drafted at most after a rest: where rows are dear, so few tell for less whether
drafts hold again, and if they do the next step drafts as many as pay."""

SLOW, FAST = 1 / 4, 1 / 2
"""How quickly the running mean follows losses and gains."""


SORTS = 256
"""Sorts of streams that are told apart at a time."""


@dataclass(slots=True, eq=False)
class Mean:
    """What drafting brings in streams of one sort."""

    net_ms: float
    """Running mean of what ``Pace.net_ms`` came to; below zero streams begin at rest."""
    streams: int = 0

    def turn(self) -> int:
        """Which stream of its sort the next one is."""
        self.streams += 1
        return self.streams - 1


class Usual:
    """What drafting usually brings, by what is known of a stream before its first step: its
    repository, its language and how freely it samples."""

    def __init__(self) -> None:
        self._all = Mean(0.0)
        self._sorts: OrderedDict[tuple[str | None, str | None, int], Mean] = OrderedDict()

    def of(self, stream: StreamView) -> Mean:
        """The mean of streams like this one; a new sort begins with that of all."""
        sort = stream.repository, stream.language, min(round(4 * stream.temperature), 8)
        mean = self._sorts.get(sort)
        if mean is None:
            mean = self._sorts[sort] = Mean(self._all.net_ms)
            if len(self._sorts) > SORTS:
                self._sorts.popitem(last=False)
        return mean

    def follow(self, mean: Mean, net_ms: float) -> None:
        """A step was planned in a stream of this sort."""
        for one in (mean, self._all):
            one.net_ms += (net_ms - one.net_ms) / 64


class Pace:
    """The drafting of one stream. ``usual`` is what it brings in other streams, in milliseconds
    a step; a new stream gets a few attempts whatever that is: at once, or where others have lost
    after ``FIRST_REST`` if it is the ``turn`` of this one, their count, and else later."""

    def __init__(self, usual: float, turn: int = 0) -> None:
        self.net_ms = max(usual, 0.0)
        """Running mean of milliseconds gained less milliseconds spent, per planned step."""
        self._length = 1 if usual >= 0.0 else LATE if turn % EARLY else FIRST_REST
        self._wait = self._length - 1

    def due(self) -> bool:
        """Whether to plan now; call once a step."""
        if self._wait > 0:
            self._wait -= 1
            return False
        return True

    def limit(self, most: int) -> int:
        """How many tokens to draft at most, where ``most`` can be of use."""
        return min(most, PROBE) if self._length > 1 else most

    def settled(self, gained_ms: float, spent_ms: float, plain_ms: float) -> None:
        """A planned step is over. ``gained_ms`` is what it saved against plain steps, ``spent_ms``
        what planning and learning took, ``plain_ms`` what a plain step takes."""
        net = gained_ms - spent_ms
        self.net_ms = min(self.net_ms, CREDIT * plain_ms)
        self.net_ms += (net - self.net_ms) * (FAST if net > self.net_ms else SLOW)
        if self.net_ms >= 0:
            self._length, self._wait = 1, 0
            return
        enough = math.ceil(max(spent_ms, -net) / (BUDGET * max(plain_ms, 1e-6)))
        self._length = min(2 * self._length, max(enough, 1), LONGEST_REST)
        self._wait = self._length - 1
