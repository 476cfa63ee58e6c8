"""Lines and places in them, against what the protocol says of them."""

from __future__ import annotations

import re

import pytest
from atlasd_lsp.cursor import offset_at
from atlasd_lsp.lines import count_lines_by_protocol
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types
from pygls.workspace import PositionCodec, TextDocument

BYTES = {"utf-8": ("utf-8", 1), "utf-16": ("utf-16-le", 2), "utf-32": ("utf-32-le", 4)}
TEXT = st.lists(st.sampled_from(["a", "é", "😀", "\f", "\u2028", "\n", "\r\n", "\r"])).map("".join)

count_lines_by_protocol()


def document(text: str, encoding: str) -> TextDocument:
    codec = PositionCodec(types.PositionEncodingKind(encoding))
    return TextDocument("file:///a.py", text, 1, "python", position_codec=codec)


def units(text: str, encoding: str) -> int:
    name, size = BYTES[encoding]
    return len(text.encode(name)) // size


@given(TEXT, st.sampled_from(list(BYTES)), st.data())
def test_every_place_is_where_the_protocol_says(text: str, encoding: str, data: st.DataObject):
    offset = data.draw(st.integers(0, len(text)))
    if text[max(0, offset - 1) : offset + 1] == "\r\n":
        offset += 1  # within a line end there is no place
    lines = re.split("(?<=\n)|(?<=\r)(?!\n)", text[:offset])
    there = types.Position(len(lines) - 1, units(lines[-1], encoding))
    assert offset_at(document(text, encoding), there) == offset


@given(TEXT, st.sampled_from(list(BYTES)), st.integers(1, 1 << 31), st.data())
def test_beyond_a_lines_end_is_its_end(text: str, encoding: str, more: int, data: st.DataObject):
    lines = re.split("\r\n|\n|\r", text)
    number = data.draw(st.integers(0, len(lines) - 1))
    end = units(lines[number], encoding)
    written = document(text, encoding)
    beyond = types.Position(number, min(end + more, (1 << 31) - 1))
    assert offset_at(written, beyond) == offset_at(written, types.Position(number, end))


@pytest.mark.parametrize("last", ["", "x", "x\n", "é😀"])
def test_an_edit_that_reaches_beyond_the_end_leaves_nothing(last: str) -> None:
    """Whoever replaces a whole document may say that it ends at the largest column there is."""
    written = document(f"a\n{last}", "utf-16")
    end = types.Position(last.count("\n") + 1, (1 << 31) - 1)
    all_of_it = types.Range(types.Position(0, 0), end)
    written.apply_change(types.TextDocumentContentChangePartial(range=all_of_it, text="new"))
    assert written.source == "new"


def test_the_lines_of_a_text_are_cut_once() -> None:
    document = TextDocument("file:///a.py", "a\fb\nc", 1, "python")
    lines = document.lines
    assert lines == ["a\fb\n", "c"]
    assert document.lines is lines
    within = types.Range(types.Position(1, 0), types.Position(1, 1))
    document.apply_change(types.TextDocumentContentChangePartial(range=within, text="d\ne"))
    assert document.lines == ["a\fb\n", "d\n", "e"]
