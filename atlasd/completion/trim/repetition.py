"""Rule 5: a small model that has nothing more to say says it again."""

from __future__ import annotations

import re

from atlasd.completion.trim.place import Place, columns, distance_within, squeezed

LONGEST_BLOCK = 8
LONGEST_UNIT = 40
LINE_STEP = 16
"""A line is looked at for loops whenever it has grown by this many characters, so that the answer
does not depend on how the text arrived."""


def ends_in_repetition(place: Place, lines: list[str]) -> int | None:
    """Ends where a line or a block of lines comes again: a line the third time, a block of three
    lines or more the second time, and lines that nearly agree the fifth time."""
    if not lines[-1].strip():
        return None  # nothing was said since the line before was looked at
    spoken = [index for index, line in enumerate(lines) if line.strip()]
    texts = [lines[index] for index in spoken]
    if texts:
        texts[0] = place.before + texts[0] if spoken[0] == 0 else texts[0]
    for block in range(1, min(LONGEST_BLOCK, len(texts) // 2) + 1):
        times = 2 if block >= 3 else 3
        if len(texts) < block * times:
            continue
        last = texts[-block:]
        says = sum(map(len, map(squeezed, last)))
        if says >= 3 and all(
            texts[-block * (turn + 1) : len(texts) - block * turn] == last
            for turn in range(1, times)
        ):
            return spoken[-block * times + block - 1] + 1
    if len(texts) >= 5 and all(_nearly(a, b) for a, b in zip(texts[-5:], texts[-4:], strict=False)):
        return spoken[-1]
    return None


def _nearly(first: str, second: str) -> bool:
    if columns(first) != columns(second):
        return False
    first, second = squeezed(first), squeezed(second)
    length = max(len(first), len(second))
    return 8 <= length <= 400 and distance_within(first, second, max(1, length // 7))


def loop_in_line(line: str, checked: int = 0) -> int | None:
    """Where to cut a line that loops (after the loop's first turn), or None. The first
    ``checked`` characters were looked at before."""
    for length in range(checked // LINE_STEP * LINE_STEP + LINE_STEP, len(line) + 1, LINE_STEP):
        for unit in range(1, LONGEST_UNIT + 1):
            turns = 24 if unit == 1 else 5
            looped = line[length - unit * turns : length] if unit * turns <= length else ""
            if looped and looped[unit:] == looped[:-unit] and re.search(r"\w", looped):
                start = length - unit * turns
                while start > 0 and line[start - 1] == line[start - 1 + unit]:
                    start -= 1
                # At the end of a word, where the loop has any.
                space = line.find(" ", start + unit, start + 2 * unit)
                return space if space >= 0 else start + unit
    return None


def ends_rewriting_above(place: Place, lines: list[str]) -> int | None:
    """Rule 8, its second half: ends at once where the first line is the line above again."""
    if len(lines) != 1:
        return None
    first = place.before + lines[0]
    says = len(squeezed(first)) >= 8 and not place.is_closer(first)
    return 0 if says and first.rstrip() == place.line_above.rstrip() else None
