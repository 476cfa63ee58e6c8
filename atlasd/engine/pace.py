"""Whether asking the drafters pays for a stream: planning takes time too.

A step of a small model takes half a millisecond, so even a look-up that finds nothing can cost more
than two per cent of it. What planned steps have brought is remembered, of a stream and of streams
like it; where they have lost, planning rests between attempts for as long as keeps the loss small,
and is back when drafts hold. All figures are shares of a plain step.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass

from atlasd.draft.drafter import StreamView

BUDGET = 0.005
"""Share of the time that planning in vain may take, wasted rows included."""

RATE = 1 / 24
"""How quickly the mean of a stream follows its steps."""

WORST = -1.0
"""What one step can be said to have lost, a step of all streams together: what is done once in a
stream, like reading its prompt to the static drafter, says nothing of the steps behind it."""

CREDIT = 0.5
"""What the mean of a stream may come to at most: text that was easy says little of the text behind
it, and buys two dozen attempts there, not a hundred."""

BEGINNING = 0.05
"""The same of a stream of which nothing is known yet."""

LONGEST_REST = 32
"""Steps; text changes its nature within a few dozen tokens."""

EVIDENCE = 32
"""So many steps that bring nothing are put before the first of a sort, lest chance decides."""

LOST = -8.0
"""Plain steps that a sort must have lost altogether for its streams to begin at rest."""

LEAST = -2.0
"""What one stream can be said to have lost: the first of an engine finds nothing in memory and
takes as long as twenty plain steps more, which says nothing of those behind it."""

CROWDED = 6 * LOST
"""What a sort has lost before its first stream where all that a step of those that decode together
takes is rows: they share the rest already, which is all that drafts can save. Where a sixth is
rows, as of four streams on a CPU, the first ones rest, and others are tried seldom."""

SAVED = 32.0
"""Plain steps that a sort is remembered to have saved at most: what was won long ago pays for no
losses now."""

FORGET = 1 / 64
"""Share of what a sort has saved or lost that each of its streams makes forgotten."""

FOLLOW = 1 / 128
"""How quickly what is usual follows; faster at first."""

EARLY, SELDOM = 8, 64
"""Of so many streams of a losing sort one is tried from its beginning: of the first number where
it has lost little, of the second where it has lost much. The others wait for ``LATE``: to take a
stream up and end it costs as much as several attempts. Streams that decode together are tried
together: steps are saved only where all of them get ahead."""

FEW = 3
"""Bits of the number of streams from which on they are tried together: of two one alone still saves
half of what both would."""

LATE = 256
"""Steps before the first attempt in the other streams."""

WORTH_BEGINNING = 32
"""Tokens that must then be left, for the same reason."""

SORTS = 256
"""Sorts of streams that are told apart at a time."""


@dataclass(slots=True, eq=False)
class Mean:
    """What planned steps bring in streams of one sort."""

    balance: float = 0.0
    """Plain steps that its streams have saved altogether, taking them up and ending them paid."""
    together: int = 1
    """So many streams in a row are tried, or none of them."""
    net: float = 0.0
    """Share of a plain step that a planned one saves, on average; below zero it costs more."""
    steps: int = 0
    streams: int = 0

    def follow(self, net: float) -> None:
        """A step was planned."""
        self.steps += 1
        self.net += (net - self.net) * max(FOLLOW, 1 / (EVIDENCE + self.steps))

    def ended(self, saved: float) -> None:
        """A stream is over that was drafted for. Where it won, the next one is worth a try,
        whatever those before have lost."""
        before = max(self.balance, LOST) if saved > 0.0 else self.balance
        self.balance = min(before + max(saved, LEAST) - before * FORGET, SAVED)

    @property
    def losing(self) -> bool:
        """Whether drafting is known to lose here."""
        return self.balance <= LOST

    def tries(self) -> bool:
        """A stream begins: whether drafting is tried in it from its first step on."""
        number, self.streams = self.streams // self.together, self.streams + 1
        return not self.losing or not number % min(SELDOM, EARLY * int(self.balance / LOST))


class Usual:
    """What drafting usually brings, by what is known of a stream before its first step: its
    repository, its language, how freely it samples, and about how many decode together."""

    def __init__(self) -> None:
        self._sorts: OrderedDict[tuple[str | None, str | None, int, int], Mean] = OrderedDict()

    def of(self, stream: StreamView, streams: int = 1, crowding: float = 0.0) -> Mean:
        """The mean of streams like this one, of which ``streams`` decode together; ``crowding``:
        the share of their steps that is rows beyond one."""
        freely, crowd = min(round(4 * stream.temperature), 8), streams.bit_length()
        sort = stream.repository, stream.language, freely, crowd
        mean = self._sorts.get(sort)
        if mean is None:
            together = 1 if crowd < FEW else 1 << crowd - 1
            mean = self._sorts[sort] = Mean(max(LOST, CROWDED * crowding), together)
            if mean.losing:  # before any was tried: the first are not
                mean.streams = together
            if len(self._sorts) > SORTS:
                self._sorts.popitem(last=False)
        return mean


class Pace:
    """The drafting of one stream, whose sort brings ``usual``."""

    __slots__ = ("_saved", "_tries", "_usual", "_wait", "net")

    def __init__(self, usual: Mean) -> None:
        self._usual = usual
        self.net = min(usual.net, BEGINNING)
        """Running mean of what planned steps save, as a share of a plain step."""
        self._saved = 0.0
        self._tries = usual.tries()
        self._wait = 0 if self._tries else LATE - 1
        if self._tries and usual.losing:  # what the others lost would let it rest before it began
            self.net = 0.0

    def resting(self, begun: bool, left: int) -> int:
        """How many of the next steps are plain in any case. ``begun``: the drafters know of the
        stream; ``left``: tokens that it may still come to."""
        if not (begun or self._tries) and left < WORTH_BEGINNING:
            return WORTH_BEGINNING  # all that are left
        return self._wait

    @property
    def pause(self) -> int:
        """Plain steps that follow the next attempt if it brings nothing."""
        return self._rest() if self.net < 0.0 else 0

    def rested(self, steps: int) -> None:
        """So many steps were plain."""
        self._wait = max(0, self._wait - steps)

    def waits(self, steps: int) -> None:
        """Native steps, which rest and try by themselves, would rest for so many more."""
        self._wait = steps

    def settled(self, gained_ms: float, spent_ms: float, plain_ms: float, streams: int = 1) -> None:
        """A planned step is over. ``gained_ms`` is what it saved against plain steps, ``spent_ms``
        what planning and learning took, ``plain_ms`` what a plain step takes; all of them this
        stream's share, if it is one of several."""
        net = max((gained_ms - spent_ms) / plain_ms, WORST * streams)
        self._usual.follow(net)
        self._saved += net
        mean = self.net + (net - self.net) * RATE
        self.net = mean if mean < CREDIT else CREDIT
        if mean < 0.0:
            self._wait = self._rest()

    def took(self, spent_ms: float, plain_ms: float) -> None:
        """To take the stream up, or to end it, took so long."""
        self._saved -= spent_ms / plain_ms

    def ended(self) -> None:
        """The stream, which was drafted for, is over."""
        self._usual.ended(self._saved)

    def _rest(self) -> int:
        """Steps between two attempts that keep what they lose within the budget."""
        return min(LONGEST_REST, math.ceil(-self.net / BUDGET)) - 1
