"""How much of a request's ``prediction`` its output has, whoever drafted it and whether at all."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Predicted:
    """Follows an output through the text it was expected to resemble.

    A pointer moves along while both say the same. Where they part it waits, and goes on at the
    nearest place that reads like the output's last two tokens. A place that was come across twice
    counts once. Linear in both lengths but for the lookups.
    """

    def __init__(self, prediction: Sequence[int]) -> None:
        self._prediction = list(prediction)
        self._found = bytearray(len(self._prediction))
        self._next = 0
        self._last: int | None = None
        self._pairs: dict[tuple[int, int], list[int]] = {}
        for at in range(1, len(self._prediction)):
            pair = self._prediction[at - 1], self._prediction[at]
            self._pairs.setdefault(pair, []).append(at)

    @property
    def accepted(self) -> int:
        """Tokens of the prediction that the output has."""
        return sum(self._found)

    @property
    def rejected(self) -> int:
        """Those it does not have."""
        return len(self._found) - self.accepted

    def feed(self, tokens: Sequence[int]) -> None:
        """More of the output."""
        for token in tokens:
            if self._next < len(self._prediction) and self._prediction[self._next] == token:
                self._take(self._next)
            elif (at := self._resumes(token)) is not None:
                self._found[at - 1] = 1
                self._take(at)
            self._last = token

    def _take(self, at: int) -> None:
        self._found[at] = 1
        self._next = at + 1

    def _resumes(self, token: int) -> int | None:
        """The nearest place after the output's last two tokens; forwards when in doubt."""
        places = self._pairs.get((self._last, token), []) if self._last is not None else []
        index = bisect_left(places, self._next)
        near = places[max(0, index - 1) : index + 1]
        return min(near, key=lambda at: (abs(at - self._next), -at), default=None)
