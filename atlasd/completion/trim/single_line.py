"""Rule 4: with text right of the cursor, a suggestion is the rest of the line and no more."""

from __future__ import annotations

from atlasd.completion.trim.place import Place


def ends_single_line(place: Place, lines: list[str]) -> int | None:
    """Ends after the first line."""
    return 1 if place.one_line else None
