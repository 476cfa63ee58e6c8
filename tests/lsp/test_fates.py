"""Fates read off edits, against hand-made cases and a simulated editor."""

from __future__ import annotations

import pytest
from atlasd_lsp.fates import Edit, Pending, Told, follow
from hypothesis import given
from hypothesis import strategies as st

TEXT = "add(a, b)\nreturn c"


@pytest.mark.parametrize(
    ("edits", "fates"),
    [
        ([Edit(10, 0, TEXT)], [("accepted", 18)]),
        ([Edit(10, 0, "add")], [("accepted_word", 3)]),
        ([Edit(10, 0, "add(a, b)")], [("accepted_line", 9)]),
        ([Edit(10, 0, "a"), Edit(11, 0, "d"), Edit(12, 0, "x")], [("dismissed", None)]),
        ([Edit(10, 0, "a"), Edit(10, 1, ""), Edit(10, 0, TEXT)], [("accepted", 18)]),
        ([Edit(10, 0, "z")], [("dismissed", None)]),
        ([Edit(0, 0, "import x\n"), Edit(19, 0, TEXT)], [("accepted", 18)]),
        ([Edit(40, 3, "zzz"), Edit(10, 0, TEXT)], [("accepted", 18)]),
        ([Edit(10, 0, "add("), Edit(14, 0, "q")], [("accepted_word", 4)]),
        ([Edit(10, 1, TEXT)], [("accepted", 18)]),
        ([Edit(10, 0, "a"), Edit(10, 1, TEXT)], [("accepted", 18)]),
        ([Edit(10, 4, TEXT)], [("dismissed", None)]),
    ],
)
def test_edits_decide_a_fate(edits: list[Edit], fates: list[tuple[str, int | None]]) -> None:
    told = follow(Pending("c", TEXT, start=10, replace_right=1), edits)
    assert [(one.fate, one.accepted_length) for one in told] == fates


def test_a_bracket_the_editor_closed_by_itself_does_not_dismiss() -> None:
    pending = Pending("c", "(a, b)", start=3)
    assert follow(pending, [Edit(3, 0, "()")]) == []
    assert follow(pending, [Edit(4, 1, "a, b)")]) == [Told("c", "accepted", 6)]


def test_a_line_end_with_the_indentation_an_editor_adds_is_typed_not_accepted() -> None:
    pending = Pending("c", "\n    return a", start=3)
    assert follow(pending, [Edit(3, 0, "\n    ")]) == []
    assert follow(pending, [Edit(8, 0, "return")]) == [Told("c", "accepted_word", 11)]


@given(st.text("ab(\n ", min_size=2, max_size=12), st.data())
def test_typing_along_in_any_pieces_ends_accepted_or_typed(text: str, data: st.DataObject) -> None:
    pending = Pending("c", text, start=5)
    at, told = 0, []
    while at < len(text):
        size = data.draw(st.integers(1, len(text) - at))
        told += follow(pending, [Edit(5 + at, 0, text[at : at + size])])
        at += size
    assert all(one.fate != "dismissed" for one in told)
    assert pending.known == len(text)
    if told:
        assert told[-1].accepted_length is not None
        assert told[-1].accepted_length <= len(text)
