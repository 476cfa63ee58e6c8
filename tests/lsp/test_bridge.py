"""The bridge over real LSP: suggestions, guards, commands."""

# ruff: noqa: ASYNC110 (what is waited for happens in another process)

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from pathlib import Path

import pytest
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from tests.lsp.conftest import Session, editor
from tests.lsp.scripted_daemon import COMPLETE, FATE, ScriptedDaemon, until


async def read_so_far(session: Session) -> None:
    """The bridge has read all that was sent to it before."""
    await session.execute("atlasd.status")


async def test_a_suggestion_carries_the_text_around_the_cursor_and_comes_back(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.enqueue("n + 1", replace_right=1)
    async with editor(tmp_path) as session:
        session.open("def f(n):\n    return )\n")
        items = await session.complete(1, 11)
        assert items is not None
        assert [item.insert_text for item in items] == ["n + 1"]
        assert items[0].range == types.Range(types.Position(1, 11), types.Position(1, 12))
        assert items[0].command == types.Command("Accepted", "atlasd.accept", arguments=("c1",))
        (body,) = daemon.bodies(COMPLETE)
        assert body["prefix"] == "def f(n):\n    return "
        assert body["suffix"] == ")\n"
        assert body["language"] == "python"
        assert body["repository"] == str(tmp_path / "repository")
        assert body["client"] == "test editor"
        fates = await until(daemon, FATE)
        assert fates == [{"id": "c1", "fate": "shown"}]


@pytest.mark.parametrize("exists", [True, False])
async def test_a_document_that_is_not_open_is_not_read_from_the_disk(
    daemon: ScriptedDaemon, tmp_path: Path, exists: bool
) -> None:
    async with editor(tmp_path) as session:
        if exists:
            (tmp_path / "repository" / "main.py").write_text("SECRET = 1\n")
        assert await session.complete(0, 0) == []
        session.open("x = ")
        daemon.enqueue("1")
        assert [item.insert_text for item in await session.complete(0, 4) or ()] == ["1"]
        session.client.text_document_did_close(
            types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(session.uri))
        )
        assert await session.complete(0, 4) == []
        assert len(daemon.bodies(COMPLETE)) == 1


@pytest.mark.parametrize(
    ("encoding", "column"),
    [
        (types.PositionEncodingKind.Utf8, 4 + 4 + 2),
        (types.PositionEncodingKind.Utf16, 4 + 2 + 1),
        (types.PositionEncodingKind.Utf32, 4 + 1 + 1),
    ],
)
async def test_positions_are_read_in_the_encoding_agreed_on(
    daemon: ScriptedDaemon, tmp_path: Path, encoding: types.PositionEncodingKind, column: int
) -> None:
    daemon.enqueue("x", replace_right=2)
    async with editor(tmp_path, encodings=(encoding,)) as session:
        session.open("s = 😀é|😀)\n")
        items = await session.complete(0, column)
        assert daemon.bodies(COMPLETE)[0]["prefix"] == "s = 😀é"
        units = {"utf-8": 1 + 4, "utf-16": 1 + 2, "utf-32": 1 + 1}[encoding.value]
        assert items is not None
        assert items[0].range is not None
        assert items[0].range.end.character == column + units


async def test_only_what_ends_a_line_for_an_editor_ends_one_here(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.enqueue("1 + 2")
    async with editor(tmp_path) as session:
        session.open("a\x0cb\u2028c\r\nd = \n")
        session.type(1, 4, "1 ")
        assert await session.complete(1, 6)
        session.type(1, 6, "+ 2")
    (body,) = daemon.bodies(COMPLETE)
    assert (body["prefix"], body["suffix"]) == ("a\x0cb\u2028c\r\nd = 1 ", "\n")


async def test_a_newer_request_cancels_the_older_one_in_the_daemon_too(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.answering.clear()
    async with editor(tmp_path) as session:
        session.open("a\n")
        first = asyncio.ensure_future(session.complete(0, 1))
        await until(daemon, COMPLETE)
        session.type(0, 1, "b")
        second = asyncio.ensure_future(session.complete(0, 2))
        assert await first is None
        await until(daemon, COMPLETE, 2)
        daemon.enqueue("new", id="c2")
        daemon.answering.set()
        items = await second
        assert items is not None
        assert items[0].insert_text == "new"
        assert daemon.cancelled == 1


async def test_an_answer_to_a_document_that_moved_on_is_not_shown(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.answering.clear()
    daemon.enqueue("late")
    async with editor(tmp_path) as session:
        session.open("a\n")
        asking = asyncio.ensure_future(session.complete(0, 1))
        await until(daemon, COMPLETE)
        session.type(0, 1, "b")
        await read_so_far(session)
        daemon.answering.set()
        assert await asking is None
    assert daemon.bodies(FATE) == []


async def test_cancelling_in_the_editor_cancels_in_the_daemon(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.answering.clear()
    async with editor(tmp_path) as session:
        session.open("a\n")
        asking = session.client.protocol.send_request(
            types.TEXT_DOCUMENT_INLINE_COMPLETION, session.params(0, 1), msg_id="r1"
        )
        await until(daemon, COMPLETE)
        session.client.cancel_request(types.CancelParams("r1"))
        async with asyncio.timeout(30):
            while not (daemon.cancelled and asking.done()):
                await asyncio.sleep(0.02)
        assert daemon.cancelled == 1


async def test_clients_without_inline_completion_get_a_menu(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.enqueue("nd(x)\nreturn y")
    async with editor(tmp_path, inline=False) as session:
        assert session.server is not None
        assert session.server.capabilities.completion_provider is not None
        session.open("appe\n")
        answer = await session.client.text_document_completion_async(
            types.CompletionParams(types.TextDocumentIdentifier(session.uri), types.Position(0, 4))
        )
        assert isinstance(answer, types.CompletionList)
        (item,) = answer.items
        assert item.label == "nd(x) …"
        assert item.filter_text == "append(x)\nreturn y"


async def test_clients_with_inline_completion_get_no_menu(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    async with editor(tmp_path) as session:
        assert session.server is not None
        assert session.server.capabilities.completion_provider is None
        assert session.server.capabilities.inline_completion_provider


async def test_commands_reach_the_daemon(daemon: ScriptedDaemon, tmp_path: Path) -> None:
    async with editor(tmp_path) as session:
        assert (await session.execute("atlasd.status"))["state"] == "ready"
        await session.execute("atlasd.pause")
        await session.execute("atlasd.resume")
        await session.execute("atlasd.why", "c9")
        assert await session.execute("atlasd.chat", "explain", "x = 1", "python") == "ab"
        called = [path for path, _ in daemon.calls]
        assert "/atlasd/v1/pause" in called
        assert "/atlasd/v1/resume" in called
        (chat,) = daemon.bodies("/v1/chat/completions")
        assert chat["prediction"]["content"] == "x = 1"
        assert chat["learn"] is True


async def test_the_bridge_tells_what_the_command_line_does(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    async with editor(tmp_path) as session:
        await daemon.stop()
        for what in ("status", "why"):
            told = await session.execute("atlasd.tell", what)
            assert told.startswith("atlasd: No daemon is running.")
        with pytest.raises(JsonRpcException, match="nothing to tell of 'stop'"):
            await session.execute("atlasd.tell", "stop")


async def test_what_fails_is_told_in_words_for_whoever_sits_before_the_editor(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    async with editor(tmp_path) as session:
        daemon.refusals["/atlasd/v1/why"] = "No completion c9 is remembered."
        with pytest.raises(JsonRpcException) as refused:
            await session.execute("atlasd.why", "c9")
        assert refused.value.message == "No completion c9 is remembered."
        await daemon.stop()
        for command in ("atlasd.pause", "atlasd.chat"):
            with pytest.raises(JsonRpcException) as unreachable:
                await session.execute(command)
            assert unreachable.value.message == "No atlasd daemon is running; run atlasd start."


@pytest.mark.timeout(30)
async def test_a_request_that_cannot_be_read_is_answered(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    """Whoever asked waited for ever."""
    async with editor(tmp_path) as session:
        protocol = session.client.protocol
        protocol._request_futures["mine"] = answer = Future()
        before = {"textDocument": {"uri": session.uri}, "position": {"line": 0, "character": -1}}
        method = "textDocument/inlineCompletion"
        protocol._send_data({"jsonrpc": "2.0", "id": "mine", "method": method, "params": before})
        with pytest.raises(JsonRpcException, match="Invalid Params"):
            await asyncio.wrap_future(answer)


async def test_whoever_chats_about_a_file_that_is_never_read_is_told_that_nothing_is_kept(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    root = tmp_path / "repository"
    async with editor(tmp_path) as session:
        for name in ("a.py", "secrets.yaml"):
            uri = (root / name).as_uri()
            asked = ("explain", "x = 1", "python", "", uri)
            assert await session.execute("atlasd.chat", *asked) == "ab"
        bodies = daemon.bodies("/v1/chat/completions")
        assert [body["path"] for body in bodies] == [str(root / "a.py"), str(root / "secrets.yaml")]
        assert {body["repository"] for body in bodies} == {str(root)}
        assert [message.message for message in session.client.messages] == [
            "atlasd: secrets.yaml is ignored or never read: nothing of this chat is kept."
        ]


async def test_who_asks_by_hand_gets_several_to_step_through(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    daemon.choose_after("x = ", ["1", "22", "333"])
    async with editor(tmp_path) as session:
        session.open("x = ")
        await session.complete(0, 4)
        by_hand = session.params(0, 4)
        by_hand.context.trigger_kind = types.InlineCompletionTriggerKind.Invoked
        answer = await session.client.text_document_inline_completion_async(by_hand)
        assert [item.insert_text for item in answer.items] == ["1", "22", "333"]
        # Neovim's own requests never say that somebody asked; its plugin says so before.
        session.client.protocol.notify(
            "atlasd/wantOtherCompletions", {"textDocument": {"uri": session.uri}}
        )
        await session.complete(0, 4)
        await session.complete(0, 4)
        asked = [(body["trigger"], body.get("choices", 1)) for body in daemon.bodies(COMPLETE)]
        assert asked == [("automatic", 1), ("invoked", 3), ("invoked", 3), ("automatic", 1)]
