"""What was made of a file's text lately, kept for as long as the file stays as it is."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """Values by path, each of one version of the file, within a budget; those not asked for
    longest go first. Not thread-safe: the owner locks."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._used = 0
        self._values: OrderedDict[str, tuple[Hashable, Value, int]] = OrderedDict()

    def get(self, path: str, version: Hashable) -> Value | None:
        """The value made of this version, None if there is none (any more)."""
        known = self._values.get(path)
        if known is None or known[0] != version:
            return None
        self._values.move_to_end(path)
        return known[1]

    def put(self, path: str, version: Hashable, value: Value, size: int) -> None:
        """Keep a value; ``size`` is its part of the budget. The last one put is kept anyhow."""
        self.drop(path)
        self._values[path] = (version, value, size)
        self._used += size
        while self._used > self._budget and len(self._values) > 1:
            self.drop(next(iter(self._values)))

    def drop(self, path: str) -> None:
        known = self._values.pop(path, None)
        self._used -= known[2] if known else 0
