"""Properties of trimming that hold for every text, and single rules at their edges."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.completion.languages import GO, LUA, PYTHON, RUST, TYPESCRIPT, C, Language
from atlasd.completion.request import Indent
from atlasd.completion.trim import Place, Watch, trim
from atlasd.completion.trim.brackets import replaced_right, unmatched, wanted_closers
from atlasd.completion.trim.indentation import indent_of
from atlasd.completion.trim.place import NEAR, columns, distance_within, similar, squeezed
from atlasd.completion.trim.repetition import loop_in_line

LANGUAGES = st.sampled_from([PYTHON, TYPESCRIPT, RUST, GO, C, LUA])
WORDS = st.sampled_from(
    [
        *("x", "y", "=", "1", "foo(", "bar(", ")", "]", "}", "{", "[", ",", ";", ":", "return"),
        *("if", "else", "end", "def", "function", "'", '"', "#", "//", "then", "do", "-"),
    ]
)
LINES = st.builds(
    lambda indent, words: " " * indent + " ".join(words),
    st.sampled_from([0, 0, 2, 4, 4, 8]),
    st.lists(WORDS, max_size=6),
)
CODE = st.lists(LINES, max_size=8).map("\n".join)
REST = st.one_of(st.just(""), CODE, CODE.map(lambda code: "\n" + code))


def place_of(prefix: str, suffix: str, language: Language) -> Place:
    return Place(prefix, suffix, language)


@settings(deadline=None)
@given(CODE, REST, CODE, LANGUAGES)
def test_a_suggestion_does_not_end_with_what_the_suffix_begins_with(
    prefix: str, suffix: str, raw: str, language: Language
) -> None:
    place = place_of(prefix, suffix, language)
    shown = trim(place, raw)
    if not shown.text:
        return
    assert shown.text == shown.text.rstrip()
    rest = place.after[shown.replace_right :].strip()
    if len(rest) >= 3 and any(character.isalnum() for character in rest):
        assert rest not in shown.text
    lines = (place.before + shown.text).split("\n")
    if place.lines_below and not place.after.strip():
        below = place.lines_below[0].rstrip()
        whole = lines if place.on_blank_line else lines[1:]
        assert all(line.rstrip() != below for line in whole)


@settings(deadline=None)
@given(CODE, REST, CODE, LANGUAGES, st.data())
def test_stopping_the_stream_early_changes_nothing(
    prefix: str, suffix: str, raw: str, language: Language, data: st.DataObject
) -> None:
    place = place_of(prefix, suffix, language)
    watch, arrived, rest = Watch(place), "", raw
    while rest:
        size = data.draw(st.integers(1, 20))
        chunk, rest = rest[:size], rest[size:]
        arrived += chunk
        if watch.feed(chunk):
            break
    one, other = trim(place, arrived), trim(place, raw)
    assert (one.text, one.replace_right) == (other.text, other.replace_right)


@settings(deadline=None)
@given(CODE, REST, CODE, LANGUAGES)
def test_everything_shown_was_said_by_the_model(
    prefix: str, suffix: str, raw: str, language: Language
) -> None:
    shown = trim(place_of(prefix, suffix, language), raw)
    assert squeezed(shown.text) in squeezed(raw)
    assert len(place_of(prefix, suffix, language).after) >= shown.replace_right


@settings(deadline=None)
@given(st.text(max_size=60), st.text(max_size=60), st.text(max_size=60), LANGUAGES)
def test_any_characters_are_trimmed_without_failing(
    prefix: str, suffix: str, raw: str, language: Language
) -> None:
    trim(place_of(prefix, suffix, language), raw)


@settings(deadline=None)
@given(
    st.text(alphabet="abc", max_size=12), st.text(alphabet="abc", max_size=12), st.integers(0, 5)
)
def test_edit_distance_agrees_with_the_textbook(first: str, second: str, limit: int) -> None:
    table = [[i + j for j in range(len(second) + 1)] for i in range(len(first) + 1)]
    for i in range(1, len(first) + 1):
        for j in range(1, len(second) + 1):
            substituted = table[i - 1][j - 1] + (first[i - 1] != second[j - 1])
            table[i][j] = min(substituted, table[i - 1][j] + 1, table[i][j - 1] + 1)
    assert distance_within(first, second, limit) == (table[-1][-1] <= limit)


@settings(deadline=None)
@given(st.text(alphabet="ab ,", max_size=120), st.integers(0, 120))
def test_loops_are_found_at_the_same_place_however_much_was_seen(line: str, seen: int) -> None:
    assert loop_in_line(line) in (None, loop_in_line(line, 0))
    if loop_in_line(line[:seen]) is None:
        assert loop_in_line(line, min(seen, len(line))) == loop_in_line(line)


@pytest.mark.parametrize(
    ("text", "language", "closers", "openers"),
    [
        ("foo(a, [b", PYTHON, [], ["(", "["]),
        ("a)}", RUST, [")", "}"], []),
        ('")" + "(" # )', PYTHON, [], []),
        ("'(' && `}` // {", TYPESCRIPT, [], []),
        ("fn f<'a>(x: &'a str) {", RUST, [], ["{"]),
        ("/* ( \n */ f(", C, [], ["("]),
        ('"""(\n""" (', PYTHON, [], ["("]),
    ],
)
def test_brackets_in_strings_and_comments_do_not_count(
    text: str, language: Language, closers: list[str], openers: list[str]
) -> None:
    assert unmatched(text, language) == (closers, openers)


@pytest.mark.parametrize(
    ("prefix", "suffix", "wanted"),
    [
        ("foo(", ")\n", ""),
        ("foo(", "\n", ")"),
        ("foo(bar(", ")\n", ")"),
        ("def f(:\n    x\n\ny = [", "\nz = 1\n", "]"),
        ("impl A {\n    fn f() {\n        ", "\n\n    fn g() {}\n}\n", "}"),
    ],
)
def test_the_closers_a_file_lacks_are_those_of_the_statement_at_the_cursor(
    prefix: str, suffix: str, wanted: str
) -> None:
    assert "".join(wanted_closers(Place(prefix, suffix, PYTHON)).elements()) == wanted


@pytest.mark.parametrize(
    ("prefix", "suffix", "text", "count"),
    [
        ("foo(", ")", "a):", 1),
        ("foo(", ")", "a", 0),
        ("foo([", "])", "a]):", 2),
        ("foo(", " )", "a):", 2),
        ("x = '", "'", "a' + b", 1),
        ("foo('", "')", "a', b)", 2),
        ("foo(", ", b)", "a):", 0),
        ("if (", ") {", "a) {", 3),
    ],
)
def test_how_much_right_of_the_cursor_is_replaced(
    prefix: str, suffix: str, text: str, count: int
) -> None:
    assert replaced_right(Place(prefix, suffix, PYTHON), text) == count


@pytest.mark.parametrize(
    ("text", "indent"),
    [
        ("a\n    b\n        c\n", Indent(4)),
        ("a\n  b\n    c\n  d\n", Indent(2)),
        ("a\n\tb\n\t\tc\n", Indent(4, spaces=False)),
        ("a\nb\n", None),
    ],
)
def test_indentation_is_read_off_the_file(text: str, indent: Indent | None) -> None:
    assert indent_of(Place(text, "", PYTHON)) == indent


def test_the_editors_indentation_wins() -> None:
    place = Place("a\n\tb\n", "", PYTHON, indent=Indent(3))
    assert indent_of(place) == Indent(3)
    assert trim(place, "if x:\n\tyes()").text == "if x:\n   yes()"


def test_a_marker_ends_the_text_unless_the_file_spells_it_too() -> None:
    raw = "x = '<CURSOR>' + y"
    assert trim(Place("", markers=("<CURSOR>",)), raw).text == "x = '"
    assert trim(Place("M = '<CURSOR>'\n", markers=("<CURSOR>",)), raw).text == raw


def test_lines_are_similar_up_to_layout_and_a_twentieth() -> None:
    assert similar("return  width*height", "return width * height")
    assert similar("self.first_value = other.first_value", "self.first_valu = other.first_value")
    assert not similar("x = 1", "x = 2")
    assert not similar("a" * 20, "b" * 20)


def test_a_tab_goes_to_the_next_stop() -> None:
    assert [columns(line) for line in ("x", "  x", "\tx", "  \tx", "\t x")] == [0, 2, 4, 4, 5]


@given(st.text("ab \n\r\f\u2028", max_size=600), st.integers(0, 3))
def test_the_lines_above_are_the_last_of_all_lines(text: str, longer: int) -> None:
    prefix = "x\n" * NEAR * longer + text
    lines = prefix[: prefix.rfind("\n") + 1].splitlines()
    assert Place(prefix).above == lines[-NEAR:]


def test_a_long_document_costs_no_more_than_what_is_near_the_cursor() -> None:
    """Nobody else is answered meanwhile; looking through all of it took 80 ms."""
    document = "def f(x):\n    return x\n\n\n" * 300_000
    markers = tuple(f"<|{name}|>" for name in range(16))
    spent = []
    for number in range(3):
        place = Place(f"{number}{document}def g():\n    ", document, PYTHON, markers=markers)
        began = time.thread_time()
        assert trim(place, "return 1\n").text == "return 1"
        spent.append(time.thread_time() - began)
    assert min(spent) < 0.03
