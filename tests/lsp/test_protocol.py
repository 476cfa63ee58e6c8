"""What stays of a session's messages: nothing."""

from __future__ import annotations

import asyncio
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from atlasd_lsp.server import AtlasdServer, make_server
from pygls.io_ import StdoutWriter


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AtlasdServer:
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path))
    made = make_server()
    made.protocol.set_writer(StdoutWriter(BytesIO()))
    return made


async def hear(server: AtlasdServer, method: str, params: dict[str, Any], id: int | None) -> None:
    message: dict[str, Any] = {"jsonrpc": "2.0", "method": method, "params": params}
    if id is not None:
        message["id"] = id
    server.protocol.handle_message(server.protocol.structure_message(message))
    await asyncio.sleep(0)


async def test_a_key_that_was_typed_is_not_remembered(server: AtlasdServer, tmp_path: Path) -> None:
    uri = (tmp_path / "a.py").as_uri()
    nobody: dict[str, Any] = {"processId": None, "rootUri": None, "capabilities": {}}
    await hear(server, "initialize", nobody | {"initializationOptions": {"startDaemon": False}}, 1)
    document = {"uri": uri, "languageId": "python", "version": 1, "text": ""}
    await hear(server, "textDocument/didOpen", {"textDocument": document}, None)
    for version in range(2, 50):
        at = {"line": 0, "character": version - 2}
        change = {"range": {"start": at, "end": at}, "text": "x"}
        changed = {"textDocument": {"uri": uri, "version": version}, "contentChanges": [change]}
        await hear(server, "textDocument/didChange", changed, None)
    assert server.workspace.get_text_document(uri).source == "x" * 48
    await hear(server, "textDocument/didClose", {"textDocument": {"uri": uri}}, None)
    await asyncio.sleep(0.01)
    assert not server.protocol._request_futures
    await server.bridge.close()
