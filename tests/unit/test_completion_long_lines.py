"""Lines that are data, not code: no expression and no rule may hold everybody up over one."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator

import pytest

from atlasd.completion.candidates import _DEFINES
from atlasd.completion.context import _CALLED
from atlasd.completion.languages import LANGUAGES, Language
from atlasd.completion.trim import Place, trim
from atlasd.workspace.definitions import defined_names
from atlasd.workspace.secrets import find_secrets

CHARACTERS = 16_000
MOST_S = 0.1
"""Processor time for one long line; what tries all ways through one takes whole seconds."""

HEADS = ("", "a ", "func ", "struct ", "from a import ", "until", "function", "do", "const a = ")
UNITS = (" ", "\t", "a", "a ", "a.", "a, ", "(", ")", "):", "{", "}", "};", "[", "/*", '"', "'",
         "`", "\\", "|", "=", ":", "import ", "import {", "const ", "let x ", "public ", "func (",
         "function", "require ", "use ", "class ", "password", "password: ", "password='",
         "0sk-", "eyJ-0", "AccountKey=0", "-----BEGIN ", "://", "a:", "end")  # fmt: skip
TAILS = ("", ";")


def lines() -> Iterator[tuple[str, Callable[[int], str]]]:
    for head in HEADS:
        for unit in UNITS:
            for tail in TAILS:
                yield (
                    f"{head!r} {unit!r} {tail!r}",
                    (lambda n, h=head, u=unit, t=tail: h + u * (n // len(u)) + t),
                )


def slowest(look: Callable[[str], object]) -> tuple[float, str]:
    """The longest time that a line takes, and which it is; most need only a glance."""
    worst = 0.0, ""
    for name, line in lines():
        for characters in (CHARACTERS // 16, CHARACTERS):
            text = line(characters)
            started = time.thread_time()
            look(text)
            took = time.thread_time() - started
            if took < MOST_S / 1000:
                break
        else:
            worst = max(worst, (took, name))
    return worst


def all_of(pattern: re.Pattern[str]) -> Callable[[str], object]:
    return lambda text: sum(1 for _ in pattern.finditer(text))


@pytest.mark.parametrize("language", LANGUAGES, ids=lambda each: each.id)
def test_what_is_asked_of_a_line_takes_no_longer_than_reading_it(language: Language) -> None:
    questions: dict[str, Callable[[str], object]] = {
        "openers": language.openers.search,
        "closers": language.closers.match,
        "continues": language.continues.match,
        "definition": language.definition.match,
        "leads": language.leads.match,
        **{f"imports {n}": all_of(each) for n, each in enumerate(language.imports)},
        "definitions": lambda text: defined_names(text, language.id),
    }
    for name, question in questions.items():
        took, line = slowest(question)
        assert took < MOST_S, f"{name}: {line}"


@pytest.mark.parametrize("pattern", [_DEFINES, _CALLED], ids=["defines", "called"])
def test_names_near_the_cursor_are_found_in_any_line(pattern: re.Pattern[str]) -> None:
    took, line = slowest(all_of(pattern))
    assert took < MOST_S, line


def test_secrets_are_looked_for_in_any_line() -> None:
    took, line = slowest(find_secrets)
    assert took < MOST_S, line


@pytest.mark.parametrize("language", ["typescript", "python", "lua"])
@pytest.mark.parametrize("unit", [")", "}", " ", "a ", "/*", '"'])
def test_suggestions_beside_a_megabyte_on_one_line_are_trimmed_at_once(
    language: str, unit: str
) -> None:
    (known,) = [each for each in LANGUAGES if each.id == language]
    data = unit * (1_000_000 // len(unit))
    for prefix, suffix in [("f(", data), (data, "\nx"), (f"{data}\nf(", ""), ("f(", f"\n{data}")]:
        started = time.thread_time()
        trim(Place(prefix, suffix, known), "a, b)\n    return a\n")
        assert time.thread_time() - started < 2 * MOST_S
