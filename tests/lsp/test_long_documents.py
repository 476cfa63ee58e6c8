"""Documents of megabytes: what is sent of them."""

from __future__ import annotations

from pathlib import Path

from atlasd_lsp.bridge import MOST_EDITED
from atlasd_lsp.cursor import NEAR, around
from hypothesis import given
from hypothesis import strategies as st

from tests.lsp.conftest import editor
from tests.lsp.scripted_daemon import COMPLETE, ScriptedDaemon, until

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
        first, second = (body["prefix"] for body in daemon.bodies(COMPLETE))
        assert second == first + "1"
        assert len(second) < 2 * NEAR
        assert (await until(daemon, "/atlasd/v1/fate"))[0] == {"id": "c1", "fate": "shown"}
        # Its text would not be taken in; that of a shorter one, changed later, is.
        session.uri += ".short"
        session.open("y = ")
        session.type(0, 4, "1")
        (edited,) = await until(daemon, "/atlasd/v1/edited")
        assert edited["text"] == "y = 1"
