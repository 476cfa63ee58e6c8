"""What the bridge costs on top of the bare socket call.

    python -m bench.bridge [--requests 60]

The same suggestion (from the type-through cache, so that the model is no part of it) is asked for
over LSP and over the socket, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from lsprotocol import types
from pygls.lsp.client import LanguageClient

from bench.report import spread, table
from bench.served import Served, serve

TEXT = "def mean(values):\n    total = sum(values)\n    return "


async def _measure(served: Served, requests: int) -> tuple[list[float], list[float]]:
    client = LanguageClient("bench", "1")
    environ = {"ATLASD_HOME": str(served.folders.data.parent)}
    await client.start_io(sys.executable, "-m", "atlasd_lsp", env=environ)
    with tempfile.TemporaryDirectory() as folder:
        uri = (Path(folder) / "mean.py").as_uri()
        await client.initialize_async(
            types.InitializeParams(
                capabilities=types.ClientCapabilities(
                    text_document=types.TextDocumentClientCapabilities(
                        inline_completion=types.InlineCompletionClientCapabilities()
                    )
                ),
                root_uri=Path(folder).as_uri(),
                initialization_options={"startDaemon": False},
            )
        )
        client.initialized(types.InitializedParams())
        document = types.TextDocumentItem(uri, "python", 1, TEXT)
        client.text_document_did_open(types.DidOpenTextDocumentParams(document))
        params = types.InlineCompletionParams(
            context=types.InlineCompletionContext(types.InlineCompletionTriggerKind.Automatic),
            text_document=types.TextDocumentIdentifier(uri),
            position=types.Position(2, 11),
        )
        body = {"prefix": TEXT, "suffix": "", "path": f"{folder}/mean.py", "language": "python"}
        body |= {"repository": folder, "document": "bench", "trusted": True}
        over_lsp, over_socket = [], []
        for turn in range(requests + 3):
            began = time.perf_counter()
            await client.text_document_inline_completion_async(params)
            middle = time.perf_counter()
            await asyncio.to_thread(served.connection.call, "POST", "/atlasd/v1/complete", body)
            if turn >= 3:
                over_lsp.append(1000 * (middle - began))
                over_socket.append(1000 * (time.perf_counter() - middle))
        await client.shutdown_async(None)
        client.exit(None)
        await client.stop()
    return over_lsp, over_socket


def measure(requests: int) -> str:
    with serve() as served:
        over_lsp, over_socket = asyncio.run(_measure(served, requests))
    more = [a - b for a, b in zip(over_lsp, over_socket, strict=True)]
    return table(
        "Bridge (`python -m bench.bridge`)",
        ["what", "ms, median (min to max)", "goal"],
        [
            ["over LSP", spread(over_lsp), ""],
            ["over the socket", spread(over_socket), ""],
            ["difference", spread(more), "5"],
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=60)
    print(measure(parser.parse_args().requests))
