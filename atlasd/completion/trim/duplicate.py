"""Rule 8: a suggestion that says what already stands there is none."""

from __future__ import annotations

from atlasd.completion.trim.place import Place, first_lines, similar, squeezed


def repeats_below(place: Place, text: str) -> str:
    """Drops a suggestion whose first lines, up to three, are nearly those below."""
    said = first_lines((place.before + text).split("\n"), 3)
    if place.after.strip() or not said or not place.on_blank_line or not place.lines_below:
        return text
    below = place.lines_below[: len(said)]
    if len(said) == 1:
        same = squeezed(said[0]) == squeezed(below[0]) and len(squeezed(said[0])) >= 4
    else:
        same = len(below) == len(said) and all(map(similar, said, below))
    return "" if same else text


def rewrites_above(place: Place, text: str) -> str:
    """Drops a suggestion whose lines are the lines just above once more."""
    said = first_lines((place.before + text).split("\n"), 3)
    above = [line for line in place.above if line.strip()][-len(said) :] if said else []
    if not above or len(above) < len(said) or len("".join(map(squeezed, said))) < 8:
        return text
    if all(map(place.is_closer, said)):
        return text
    same = all(one.rstrip() == other.rstrip() for one, other in zip(said, above, strict=True))
    return "" if same else text
