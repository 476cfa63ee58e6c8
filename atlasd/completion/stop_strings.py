"""Where a text ends that must not contain certain strings, whatever chunks it comes in."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Cuts a text at the stop string that ends first (of those, the one that starts first).

    Text that may turn out to be the beginning of a stop string is held back, so the result does
    not depend on how the text is cut into chunks.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""
        self.found: str | None = None

    def feed(self, text: str) -> str:
        """Text that can be shown now; once ``found`` is set it is always empty."""
        if self.found is not None:
            return ""
        if not self._stops:
            return text
        window = self._held + text
        hits = [
            (at + len(stop), at, stop) for stop in self._stops if (at := window.find(stop)) >= 0
        ]
        if hits:
            _, at, self.found = min(hits)
            self._held = ""
            return window[:at]
        keep = self._may_start_a_stop(window)
        self._held = window[len(window) - keep :]
        return window[: len(window) - keep]

    def flush(self) -> str:
        """What was held back, now that nothing follows."""
        held, self._held = self._held, ""
        return held

    def _may_start_a_stop(self, window: str) -> int:
        longest = min(len(window), max(map(len, self._stops)) - 1)
        for length in range(longest, 0, -1):
            tail = window[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
