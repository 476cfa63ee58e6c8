"""What the bridge tells of its suggestions' fates over real LSP: commands, notifications, edits."""

from __future__ import annotations

from pathlib import Path

import pytest
from lsprotocol import types

from tests.lsp.conftest import Session, editor
from tests.lsp.scripted_daemon import FATE, ScriptedDaemon, until


async def told(daemon: ScriptedDaemon, count: int) -> list[tuple[str, int | None]]:
    """The first ``count`` fates and the characters that were accepted."""
    fates = await until(daemon, FATE, count)
    return [(one["fate"], one.get("accepted_length")) for one in fates]


def accept_part(session: Session, item: types.InlineCompletionItem, units: int) -> None:
    """Tell, as Copilot's clients do, that the first UTF-16 units of a suggestion were taken."""
    assert item.command is not None
    wire = {"insertText": item.insert_text, "command": {"arguments": item.command.arguments}}
    session.client.protocol.notify(
        "textDocument/didPartiallyAcceptCompletion", {"item": wire, "acceptedLength": units}
    )


@pytest.mark.parametrize("edit_first", [False, True])
async def test_accepting_by_command_is_reported_once(
    daemon: ScriptedDaemon, tmp_path: Path, edit_first: bool
) -> None:
    daemon.enqueue("total = 0")
    async with editor(tmp_path) as session:
        session.open("\n")
        await session.complete(0, 0)
        if edit_first:
            session.type(0, 0, "total = 0")
        await session.execute("atlasd.accept", "c1")
        if not edit_first:
            session.type(0, 0, "total = 0")
    # The bridge tells what it has to tell before it ends.
    assert [one["fate"] for one in daemon.bodies(FATE)] == ["shown", "accepted"]


async def test_fates_are_inferred_from_edits_where_the_client_cannot_tell(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.enqueue("total = 0\nfor x in y:")
    async with editor(tmp_path) as session:
        session.open("\n")
        await session.complete(0, 0)
        session.type(0, 0, "total ")
        session.type(0, 6, "=")
        session.type(0, 7, " 0\n")
        session.type(1, 0, "for x in y:")
        assert await told(daemon, 4) == [
            ("shown", None),
            ("accepted_word", 6),
            ("accepted_line", 10),
            ("accepted", 21),
        ]


async def test_a_suggestion_is_accepted_also_where_lines_end_in_two_characters(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.enqueue("total = 0\nfor x in y:\n    pass")
    async with editor(tmp_path) as session:
        session.open("a\r\nb\r\n\r\nc\r\n")
        await session.complete(2, 0)
        session.change((0, 1), (1, 0), "")
        session.type(1, 0, "total = 0")
        session.type(1, 9, "\r\nfor x in y:\r\n    pass")
        assert await told(daemon, 3) == [
            ("shown", None),
            ("accepted_line", 9),
            ("accepted", 30),
        ]


async def test_an_edit_at_the_end_of_a_document_is_read_in_its_encoding(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.enqueue("total = 0")
    async with editor(tmp_path) as session:
        session.open("# 😀😀\n")
        await session.complete(1, 0)
        session.type(1, 0, "total")
        fates = await until(daemon, FATE, 2)
        assert [one["fate"] for one in fates] == ["shown", "accepted_word"]


async def test_fates_of_nothing_are_no_news_and_no_error(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.enqueue("x = 1")
    async with editor(tmp_path) as session:
        session.open("\n")
        (item,) = await session.complete(0, 0) or []
        notify = session.client.protocol.notify
        for wire in ({}, {"item": None}, {"item": {"command": {"arguments": []}}}, {"item": []}):
            notify("textDocument/didShowCompletion", wire)
            notify("textDocument/didPartiallyAcceptCompletion", {**wire, "acceptedLength": 2})
            notify("atlasd/didDismissCompletion", wire)
        accept_part(session, item, 3)
        assert (await told(daemon, 2))[-1] == ("accepted_word", 3)
        assert not session.client.messages


async def test_copilots_partial_accept_notification_counts_utf16_units(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.enqueue("😀x = 1")
    async with editor(tmp_path) as session:
        session.open("\n")
        (item,) = await session.complete(0, 0) or []
        accept_part(session, item, 3)
        fates = await until(daemon, FATE, 2)
        assert fates[1] == {"id": "c1", "fate": "accepted_word", "accepted_length": 2}


async def test_the_rest_of_a_suggestion_counts_as_the_suggestion_itself(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.enqueue("one two three")
    async with editor(tmp_path) as session:
        session.open("\n")
        (item,) = await session.complete(0, 0) or []
        accept_part(session, item, 3)
        session.type(0, 0, "one")
        session.type(0, 3, " ")
        daemon.enqueue("two three", id="c2", source="type-through")
        await session.complete(0, 4)
        session.type(0, 4, "two")
        daemon.enqueue(" three", id="c3", source="type-through")
        await session.complete(0, 7)
        await session.execute("atlasd.accept", "c3")
        session.type(0, 7, " three")
    fates = daemon.bodies(FATE)
    assert [(one["id"], one["fate"], one.get("accepted_length")) for one in fates] == [
        ("c1", "shown", None),
        ("c1", "accepted_word", 3),
        ("c1", "accepted_word", 7),
        ("c1", "accepted", None),
    ]
