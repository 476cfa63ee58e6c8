"""From a model's raw text to a suggestion: rules with names, in one order, each a pure function.

The order is that of the projects they were learned from, with one difference: the rules that
*end* a text run first, because they also stop the stream (``stream.Watch``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from atlasd.completion.trim.brackets import replaced_right
from atlasd.completion.trim.duplicate import repeats_below, rewrites_above
from atlasd.completion.trim.edges import (
    code_fences,
    double_space,
    incomplete_line,
    leading_lines,
    markers,
    too_short,
    trailing_space,
)
from atlasd.completion.trim.indentation import indented_twice, tabs_or_spaces
from atlasd.completion.trim.place import Place
from atlasd.completion.trim.stream import Watch
from atlasd.completion.trim.suffix import closing_line, cut_at_suffix, overlap

__all__ = ["Place", "Trimmed", "Watch", "trim"]

Rule = Callable[[Place, str], str]

CLEANING_RULES: tuple[tuple[str, Rule], ...] = (
    ("suffix again", cut_at_suffix),
    ("overlap", overlap),
    ("closing line", closing_line),
    ("repeats below", repeats_below),
    ("rewrites above", rewrites_above),
    ("leading lines", leading_lines),
    ("tabs or spaces", tabs_or_spaces),
    ("indented twice", indented_twice),
    ("trailing space", trailing_space),
    ("double space", double_space),
    ("too short", too_short),
)


@dataclass(frozen=True)
class Trimmed:
    """A suggestion ready to insert. ``replace_right`` counts the characters right of the cursor
    that it replaces; ``rules`` names the rules that changed or ended the text."""

    text: str
    replace_right: int = 0
    rules: tuple[str, ...] = ()


def trim(place: Place, raw: str, *, cut_off: bool = False) -> Trimmed:
    """Clean a model's text. ``cut_off``: it ended at its length limit, not by itself."""
    fired: list[str] = []

    def apply(name: str, rule: Rule, text: str) -> str:
        changed = rule(place, text)
        if changed != text:
            fired.append(name)
        return changed

    text = apply("markers", markers, raw.replace("\r\n", "\n"))
    text = apply("code fences", code_fences, text)
    watch = Watch(place)
    watch.feed(text)
    text = watch.finish()
    if watch.rule is not None:
        fired.append(watch.rule)
    elif cut_off:
        text = apply("incomplete line", incomplete_line, text)
    for name, rule in CLEANING_RULES:
        text = apply(name, rule, text)
    replace = replaced_right(place, text)
    if replace:
        fired.append("replaced right")
    return Trimmed(text, replace, tuple(fired))
