"""Documents of megabytes: what is sent of them, and what a key in one costs."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atlasd_lsp.bridge import EDIT_PAUSE_S, MOST_EDITED
from atlasd_lsp.cursor import NEAR, around
from atlasd_lsp.lines import count_lines_by_protocol
from hypothesis import given
from hypothesis import strategies as st
from lsprotocol import types
from pygls.workspace import TextDocument

from tests.lsp.conftest import editor
from tests.lsp.scripted_daemon import ScriptedDaemon, until

LINE = "def name_of_thing(alpha, beta): return alpha + beta\n"
SOURCE = "".join(f"{number:07d}" for number in range(NEAR // 2))


@given(st.integers(0, len(SOURCE)))
def test_what_is_near_the_cursor_is_sent_from_a_place_that_stays(offset: int) -> None:
    before, behind = around(SOURCE, offset)
    assert SOURCE[:offset].endswith(before)
    assert SOURCE[offset:].startswith(behind)
    assert len(before) >= min(offset, NEAR)
    assert len(behind) == min(len(SOURCE) - offset, NEAR)
    assert (offset - len(before)) % NEAR == 0
    assert len(before) < 2 * NEAR


async def test_a_document_too_long_for_a_request_gets_suggestions(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    """It got none, and a key in a document of megabytes took most of a second."""
    text = LINE * (12 * MOST_EDITED // len(LINE)) + "x = "
    last = text.count("\n")
    async with editor(tmp_path) as session:
        session.open(text)
        daemon.enqueue("1")
        assert [item.insert_text for item in await session.complete(last, 4) or ()] == ["1"]
        session.type(last, 4, "1")
        daemon.enqueue("2", id="c2")
        assert [item.insert_text for item in await session.complete(last, 5) or ()] == ["2"]
        first, second = (body["prefix"] for body in daemon.bodies("/atlasd/v1/complete"))
        assert second == first + "1"
        assert len(second) < 2 * NEAR
        assert (await until(daemon, "/atlasd/v1/fate"))[0] == {"id": "c1", "fate": "shown"}
        await asyncio.sleep(EDIT_PAUSE_S + 1)
        assert daemon.bodies("/atlasd/v1/edited") == []  # the daemon would not take it in


def test_the_lines_of_a_text_are_cut_once() -> None:
    count_lines_by_protocol()
    document = TextDocument("file:///a.py", "a\fb\nc", 1, "python")
    lines = document.lines
    assert lines == ["a\fb\n", "c"]
    assert document.lines is lines
    within = types.Range(types.Position(1, 0), types.Position(1, 1))
    document.apply_change(types.TextDocumentContentChangePartial(range=within, text="d\ne"))
    assert document.lines == ["a\fb\n", "d\n", "e"]
