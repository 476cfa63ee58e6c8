"""A real bridge process, driven over LSP, beside a scripted daemon."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from lsprotocol import types
from pytest_lsp import LanguageClient, make_test_lsp_client

from tests.lsp.scripted_daemon import ScriptedDaemon


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[ScriptedDaemon]:
    scripted = ScriptedDaemon(tmp_path / "home")
    await scripted.start()
    yield scripted
    await scripted.stop()


class Session:
    """An editor with one document open."""

    def __init__(self, client: LanguageClient, uri: str) -> None:
        self.client = client
        self.uri = uri
        self.version = 1
        self.server: types.InitializeResult | None = None

    def open(self, text: str, language: str = "python") -> None:
        item = types.TextDocumentItem(self.uri, language, self.version, text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))

    def change(self, start: tuple[int, int], end: tuple[int, int], text: str) -> None:
        self.version += 1
        within = types.Range(types.Position(*start), types.Position(*end))
        self.client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(uri=self.uri, version=self.version),
                [types.TextDocumentContentChangePartial(range=within, text=text)],
            )
        )

    def type(self, line: int, character: int, text: str) -> None:
        self.change((line, character), (line, character), text)

    def params(self, line: int, character: int) -> types.InlineCompletionParams:
        return types.InlineCompletionParams(
            context=types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic),
            text_document=types.TextDocumentIdentifier(self.uri),
            position=types.Position(line, character),
        )

    async def complete(self, line: int, character: int) -> list[types.InlineCompletionItem] | None:
        answer = await self.client.text_document_inline_completion_async(
            self.params(line, character)
        )
        return None if answer is None else list(answer.items)

    async def execute(self, command: str, *arguments: Any) -> Any:
        return await self.client.workspace_execute_command_async(
            types.ExecuteCommandParams(command, list(arguments))
        )


@asynccontextmanager
async def editor(
    folder: Path,
    *,
    encodings: tuple[types.PositionEncodingKind, ...] = (types.PositionEncodingKind.Utf16,),
    inline: bool = True,
    progress: bool = False,
    options: dict[str, Any] | None = None,
    environ: dict[str, str] | None = None,
) -> AsyncIterator[Session]:
    """A session with a bridge process whose daemon lives below ``folder / "home"``."""
    client = make_test_lsp_client()
    env = os.environ | {"ATLASD_HOME": str(folder / "home")} | (environ or {})
    await client.start_io(sys.executable, "-m", "atlasd_lsp", env=env)
    root = folder / "repository"
    root.mkdir(exist_ok=True)
    capability = types.InlineCompletionClientCapabilities() if inline else None
    answer = await client.initialize_session(
        types.InitializeParams(
            capabilities=types.ClientCapabilities(
                general=types.GeneralClientCapabilities(position_encodings=list(encodings)),
                text_document=types.TextDocumentClientCapabilities(inline_completion=capability),
                window=types.WindowClientCapabilities(work_done_progress=progress),
            ),
            client_info=types.ClientInfo("test editor", "1"),
            workspace_folders=[types.WorkspaceFolder(root.as_uri(), "repository")],
            initialization_options={"startDaemon": False} | (options or {}),
        )
    )
    session = Session(client, (root / "main.py").as_uri())
    session.server = answer
    try:
        yield session
    finally:
        await client.shutdown_session()
        await client.stop()
