"""The bridge over real LSP: the daemon it finds, and what it tells that of the workspace."""

# ruff: noqa: ASYNC110 (what is waited for happens in another process)

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from atlasd_lsp.bridge import EDIT_PAUSE_S
from lsprotocol import types

from tests.lsp.conftest import editor
from tests.lsp.scripted_daemon import COMPLETE, ScriptedDaemon, until


async def test_the_session_survives_a_daemon_restart_and_opens_its_folders_again(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    async with editor(tmp_path) as session:
        session.open("a\n")
        await until(daemon, "/atlasd/v1/workspace")
        await daemon.stop()
        assert await session.complete(0, 1) == []
        assert (await session.execute("atlasd.status"))["state"] == "stopped"
        daemon.pid = 2
        await daemon.start()
        daemon.enqueue("again")
        items = await session.complete(0, 1)
        assert items is not None
        assert items[0].insert_text == "again"
        opened = await until(daemon, "/atlasd/v1/workspace", 2)
        root = {"root": str(tmp_path / "repository"), "trusted": True}
        assert opened == [{"open": [root]}] * 2


@pytest.mark.timeout(60)
async def test_a_daemon_is_reached_whose_command_stays_beside_it(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    """As ``atlasd start --foreground`` does: the bridge waited for its end."""
    await daemon.stop()
    begun = tmp_path / "begun"
    stays = f"import os, time; open({str(begun)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    command = [sys.executable, "-c", stays]
    async with editor(tmp_path, options={"startDaemon": True, "daemonCommand": command}) as session:
        session.open("x = ")
        asking = asyncio.ensure_future(session.complete(0, 4))
        while not begun.exists() or not begun.read_text():
            await asyncio.sleep(0.02)
        daemon.enqueue("1")
        await daemon.start()
        assert [item.insert_text for item in await asking or ()] == ["1"]
    os.kill(int(begun.read_text()), signal.SIGKILL)


async def test_an_untrusted_workspace_is_said_to_be_one_and_its_buffers_stay_here(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    async with editor(tmp_path, options={"trusted": False}) as session:
        session.open("a\n")
        session.type(0, 1, "b")
        await session.complete(0, 2)
        await session.execute("atlasd.chat", "explain", "x = 1", "python")
        await asyncio.sleep(EDIT_PAUSE_S + 0.3)
        assert daemon.bodies(COMPLETE)[0]["trusted"] is False
        assert daemon.bodies("/v1/chat/completions")[0]["learn"] is False
        assert daemon.bodies("/atlasd/v1/edited") == []


async def test_other_settings_that_change_make_no_workspace_a_trusted_one(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    async with editor(tmp_path, options={"trusted": False}) as session:
        await until(daemon, "/atlasd/v1/workspace")
        session.client.workspace_did_change_configuration(
            types.DidChangeConfigurationParams({"atlasd": {"maxTokens": 9}})
        )
        opened = await until(daemon, "/atlasd/v1/workspace", 2)
        assert [one["open"][0]["trusted"] for one in opened] == [False, False]
        session.open("a\n")
        await session.complete(0, 1)
        (asked,) = daemon.bodies(COMPLETE)
        assert (asked["trusted"], asked["max_tokens"]) == (False, 9)


async def test_folders_come_and_go_and_those_elsewhere_are_passed_over(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    first, second = tmp_path / "repository", tmp_path / "second"
    away = types.WorkspaceFolder("vscode-vfs://github/some/where", "where")
    async with editor(tmp_path) as session:
        await until(daemon, "/atlasd/v1/workspace")
        session.client.workspace_did_change_workspace_folders(
            types.DidChangeWorkspaceFoldersParams(
                types.WorkspaceFoldersChangeEvent(
                    added=[types.WorkspaceFolder(second.as_uri(), "second"), away],
                    removed=[types.WorkspaceFolder(first.as_uri(), "repository")],
                )
            )
        )
        told = await until(daemon, "/atlasd/v1/workspace", 3)
        assert told[1:] == [
            {"close": [str(first)]},
            {"open": [{"root": str(second), "trusted": True}]},
        ]


async def test_an_unsaved_buffer_is_passed_on_once_typing_pauses(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    async with editor(tmp_path) as session:
        session.open("a\n")
        for at, letter in enumerate("bcd"):
            session.type(0, 1 + at, letter)
        (body,) = await until(daemon, "/atlasd/v1/edited")
        assert body["text"] == "abcd\n"
        assert body["path"] == str(tmp_path / "repository" / "main.py")


async def test_a_buffer_that_is_closed_is_told_if_its_text_was(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    async with editor(tmp_path) as session:
        session.open("a\n")
        session.type(0, 1, "b")
        await until(daemon, "/atlasd/v1/edited")
        closing = types.DidCloseTextDocumentParams(types.TextDocumentIdentifier(session.uri))
        session.client.text_document_did_close(closing)
        told = await until(daemon, "/atlasd/v1/edited", 2)
        assert [one["text"] for one in told] == ["ab\n", None]
        session.open("a\n")
        session.type(0, 1, "c")
        session.client.text_document_did_close(closing)
        await asyncio.sleep(EDIT_PAUSE_S + 0.3)
        assert len(daemon.bodies("/atlasd/v1/edited")) == 2


async def test_loading_is_shown_as_progress_and_again_for_another_daemon(
    daemon: ScriptedDaemon, tmp_path: Path
) -> None:
    loading = [
        {"state": "loading", "stage": "reading weights", "fraction": 0.25},
        {"state": "loading", "stage": "measuring steps", "fraction": 0.75},
    ]
    daemon.progress = [*loading, {"state": "ready"}]
    async with editor(tmp_path, progress=True) as session:
        session.open("a\n")
        reports = session.client.progress_reports
        async with asyncio.timeout(20):
            while [len(steps) for steps in reports.values()] != [3]:
                await asyncio.sleep(0.05)
        [(begin, report, end)] = reports.values()
        assert (begin.title, begin.message, begin.percentage) == ("atlasd", "reading weights", 25)
        assert (report.message, report.percentage) == ("measuring steps", 75)
        assert end.message == "ready"
        await daemon.stop()
        assert await session.complete(0, 1) == []
        await daemon.start()
        await session.complete(0, 1)
        async with asyncio.timeout(20):
            while [len(steps) for steps in reports.values()] != [3, 3]:
                await asyncio.sleep(0.05)
