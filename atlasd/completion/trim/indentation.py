"""Rule 9: a suggestion is indented as the file is, with its tabs or spaces, and only once."""

from __future__ import annotations

from collections import Counter

from atlasd.completion.request import Indent
from atlasd.completion.trim.place import TAB, Place, columns, indentation


def indent_of(place: Place) -> Indent | None:
    """The editor's setting, or what the lines around use; None where nothing tells."""
    if place.indent is not None:
        return place.indent
    leads = [indentation(line) for line in [*place.above, place.before, *place.below]]
    tabs = sum(lead.startswith("\t") for lead in leads)
    spaces = sum(lead.startswith(" ") for lead in leads)
    if not tabs and not spaces:
        return Indent(TAB, spaces=False) if place.language.id == "go" else None
    if tabs >= spaces:
        return Indent(TAB, spaces=False)
    widths = [len(lead) for lead in leads if lead.startswith(" ")]
    steps = Counter(
        abs(after - before)
        for before, after in zip([0, *widths], widths, strict=False)
        if abs(after - before) in (2, 3, 4, 8)
    )
    return Indent(steps.most_common(1)[0][0] if steps else TAB, spaces=True)


def tabs_or_spaces(place: Place, text: str) -> str:
    """Indents with what the file indents with; a file that uses both is left alone."""
    wanted = indent_of(place)
    leads = [indentation(line) for line in [*place.above, *place.below]]
    mixed = any("\t" in lead for lead in leads) and any("  " in lead for lead in leads)
    if wanted is None or mixed:
        return text
    first, *rest = text.split("\n")
    if place.on_blank_line:
        first = _convert(first, wanted, _unit(rest or [first], wanted))
    return "\n".join([first, *(_convert(line, wanted, _unit(rest, wanted)) for line in rest)])


def _unit(lines: list[str], wanted: Indent) -> int:
    """Spaces that stand for one tab in lines of a model that was asked for tabs."""
    widths = [len(lead) for line in lines if (lead := indentation(line)).startswith("  ")]
    if any(width % 4 == 2 for width in widths) and wanted.size != 4:
        return 2
    return 4


def _convert(line: str, wanted: Indent, unit: int) -> str:
    lead = indentation(line)
    if wanted.spaces and "\t" in lead:
        return lead.replace("\t", " " * wanted.size) + line[len(lead) :]
    if not wanted.spaces and " " in lead:
        width = sum(unit if character == "\t" else 1 for character in lead)
        # What is left of a level is alignment and stays in spaces.
        return "\t" * (width // unit) + " " * (width % unit) + line[len(lead) :]
    return line


def indented_twice(place: Place, text: str) -> str:
    """Takes off an indentation that the cursor's line has already."""
    lead = indentation(text)
    if not lead or not place.before or not place.on_blank_line or not place.line_above:
        return text
    unit = (indent_of(place) or Indent()).size
    above = columns(place.line_above)
    expected = above + unit if place.opens_block(place.line_above) else above
    if columns(place.before) != expected or columns(place.before + lead + "x") == expected:
        return text
    first, *rest = text.split("\n")
    shifted = [
        line.removeprefix(lead) if len(indentation(line)) > len(lead) else line for line in rest
    ]
    deep = all(columns(line) > expected for line in rest if line.strip())
    return "\n".join([first[len(lead) :], *(shifted if deep else rest)])
