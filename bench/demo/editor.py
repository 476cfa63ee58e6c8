"""An editor for the demo: a language client with one document open, and someone who types in it."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lsprotocol import types
from pygls.lsp.client import LanguageClient

ACCEPT_COMMAND = "atlasd.accept"


@dataclass(frozen=True)
class Suggested:
    """A suggestion and how long it took to come, in milliseconds."""

    text: str
    ms: float
    command: types.Command | None

    @property
    def id(self) -> str:
        """What the daemon calls it."""
        return str((self.command.arguments or [""])[0]) if self.command else ""


class Editor:
    """Speaks LSP to a real ``atlasd-lsp`` process, as editors do."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._client = LanguageClient("atlasd-demo", "1")
        self._path = root
        self._uri = ""
        self._version = 0
        self.text = ""

    async def start(self, environ: dict[str, str]) -> None:
        await self._client.start_io(sys.executable, "-m", "atlasd_lsp", env=os.environ | environ)
        inline = types.InlineCompletionClientCapabilities()
        await self._client.initialize_async(
            types.InitializeParams(
                capabilities=types.ClientCapabilities(
                    general=types.GeneralClientCapabilities(
                        position_encodings=[types.PositionEncodingKind.Utf32]
                    ),
                    text_document=types.TextDocumentClientCapabilities(inline_completion=inline),
                ),
                client_info=types.ClientInfo("atlasd demo", "1"),
                workspace_folders=[types.WorkspaceFolder(self.root.as_uri(), self.root.name)],
                initialization_options={"startDaemon": False},
            )
        )
        self._client.initialized(types.InitializedParams())

    async def stop(self) -> None:
        await self._client.shutdown_async(None)
        self._client.exit(None)
        await self._client.stop()

    def open(self, path: Path, text: str) -> None:
        """Open a document with this text."""
        self._path, self._uri, self._version, self.text = path, path.as_uri(), 1, text
        item = types.TextDocumentItem(self._uri, "python", 1, text)
        self._client.text_document_did_open(types.DidOpenTextDocumentParams(item))

    def close(self) -> None:
        document = types.TextDocumentIdentifier(self._uri)
        self._client.text_document_did_close(types.DidCloseTextDocumentParams(document))

    def save(self) -> None:
        """Write the document to its file."""
        self._path.write_text(self.text)
        document = types.TextDocumentIdentifier(self._uri)
        self._client.text_document_did_save(types.DidSaveTextDocumentParams(document))

    def insert(self, offset: int, text: str) -> None:
        """Put text into the document, in one edit."""
        self._version += 1
        at = self._position(offset)
        self._client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(uri=self._uri, version=self._version),
                [types.TextDocumentContentChangePartial(range=types.Range(at, at), text=text)],
            )
        )
        self.text = self.text[:offset] + text + self.text[offset:]

    async def suggest(self, offset: int) -> Suggested | None:
        """What the editor would show as ghost text at the cursor."""
        began = time.perf_counter()
        answer = await self._client.text_document_inline_completion_async(
            types.InlineCompletionParams(
                context=types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic),
                text_document=types.TextDocumentIdentifier(self._uri),
                position=self._position(offset),
            )
        )
        ms = 1000 * (time.perf_counter() - began)
        items = answer.items if isinstance(answer, types.InlineCompletionList) else answer or []
        if not items:
            return None
        return Suggested(str(items[0].insert_text), ms, items[0].command)

    async def accept(self, offset: int, suggested: Suggested) -> None:
        """Accept a whole suggestion: the text goes in, and the command that tells so is run."""
        self.insert(offset, suggested.text)
        if suggested.command is not None:
            await self._client.workspace_execute_command_async(
                types.ExecuteCommandParams(
                    suggested.command.command, list(suggested.command.arguments or [])
                )
            )

    def _position(self, offset: int) -> types.Position:
        before = self.text[:offset]
        line = before.count("\n")
        return types.Position(line, len(before) - (before.rfind("\n") + 1))
