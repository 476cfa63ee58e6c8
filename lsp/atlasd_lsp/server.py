"""The language server: LSP on standard input and output, the daemon behind it."""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.workspace import TextDocument

from atlasd_lsp import __version__, commands, inline
from atlasd_lsp.bridge import Bridge
from atlasd_lsp.cursor import file_path, owning_root
from atlasd_lsp.executing import register_commands
from atlasd_lsp.fates import Told
from atlasd_lsp.lines import count_lines_by_protocol
from atlasd_lsp.loading import show_loading
from atlasd_lsp.options import parse_options
from atlasd_lsp.protocol import TidyProtocol
from atlasd_lsp.socket_path import socket_path


class AtlasdServer(LanguageServer):
    """pygls's server with the bridge's state beside it."""

    def __init__(self) -> None:
        super().__init__("atlasd", __version__, protocol_cls=TidyProtocol)
        self.bridge = Bridge(socket_path)

    def warn(self, text: str) -> None:
        """Tell whoever sits before the editor."""
        self.window_show_message(
            types.ShowMessageParams(types.MessageType.Warning, f"atlasd: {text}")
        )


def make_server() -> AtlasdServer:
    """A server with every feature registered."""
    count_lines_by_protocol()
    server = AtlasdServer()
    _register_session(server)
    _register_documents(server)
    _register_suggestions(server)
    _register_fates(server)
    register_commands(server)
    return server


def _register_session(server: AtlasdServer) -> None:
    bridge = server.bridge

    @server.feature(types.INITIALIZE)
    def initialize(params: types.InitializeParams) -> None:
        bridge.options, complaints = parse_options(params.initialization_options)
        client = params.client_info.name if params.client_info else ""
        bridge.editor = bridge.options.editor or client
        bridge.roots = _paths(params.workspace_folders or [])
        if not params.workspace_folders and params.root_uri:
            bridge.roots = [path for path in [file_path(params.root_uri)] if path]
        document = params.capabilities.text_document
        has_inline = document is not None and document.inline_completion is not None
        if bridge.options.popup and not has_inline:
            _register_popup(server)
        for complaint in complaints:
            server.warn(complaint)

    @server.feature(types.INITIALIZED)
    def initialized(_: types.InitializedParams) -> None:
        bridge.on_new_daemon = lambda: bridge.spawn(show_loading(server, bridge))
        bridge.spawn(_connect_or_say_why(server))

    @server.feature(types.WORKSPACE_DID_CHANGE_WORKSPACE_FOLDERS)
    async def folders_changed(params: types.DidChangeWorkspaceFoldersParams) -> None:
        gone = _paths(params.event.removed)
        added = _paths(params.event.added)
        bridge.roots = [root for root in bridge.roots if root not in gone] + added
        if gone:
            await bridge.quietly("/atlasd/v1/workspace", {"close": gone})
        await bridge.open_roots(added)

    @server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
    async def configured(params: types.DidChangeConfigurationParams) -> None:
        settings = params.settings
        if isinstance(settings, dict) and isinstance(settings.get("atlasd"), dict):
            bridge.options, complaints = parse_options(settings["atlasd"], bridge.options)
            for complaint in complaints:
                server.warn(complaint)
            await bridge.open_roots(bridge.roots)

    @server.feature(types.SHUTDOWN)
    async def shutdown(_: None) -> None:
        await bridge.close()


def _paths(folders: Sequence[types.WorkspaceFolder]) -> list[str]:
    """Those that are on this machine's disk."""
    return [path for folder in folders if (path := file_path(folder.uri))]


async def _connect_or_say_why(server: AtlasdServer) -> None:
    """Without this somebody whose daemon cannot start would wait for suggestions that never come.
    Told once: what fails later is in the status."""
    if not await server.bridge.connect():
        server.warn(str(server.bridge.problem))


def _register_documents(server: AtlasdServer) -> None:
    bridge = server.bridge

    @server.feature(types.TEXT_DOCUMENT_DID_CHANGE)
    def changed(params: types.DidChangeTextDocumentParams) -> None:
        document = server.workspace.get_text_document(params.text_document.uri)
        bridge.tell(
            bridge.shown.changed(
                document.uri, list(params.content_changes), document.position_codec
            )
        )
        path = file_path(document.uri)
        root = owning_root(path, bridge.roots)
        if path is not None and root is not None and bridge.options.trusted:
            bridge.edited(path, root, document.source)

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        uri = params.text_document.uri
        bridge.tell(bridge.shown.close(uri))
        if (path := file_path(uri)) is not None:
            bridge.closed(path, owning_root(path, bridge.roots))


def _opened(server: AtlasdServer, uri: str) -> TextDocument | None:
    """A document the editor has open. pygls would read any other from the disk, whatever it is,
    and fail where there is none, as behind a tab that was closed a moment ago."""
    documents: dict[str, TextDocument] = server.workspace.text_documents
    return documents.get(unquote(uri))


def _register_suggestions(server: AtlasdServer) -> None:
    bridge = server.bridge

    @server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION, types.InlineCompletionOptions())
    async def inline_completion(
        params: types.InlineCompletionParams,
    ) -> types.InlineCompletionList | None:
        document = _opened(server, params.text_document.uri)
        if document is None:
            return types.InlineCompletionList([])
        invoked = params.context.trigger_kind == types.InlineCompletionTriggerKind.Invoked
        if document.uri in bridge.others_wanted:
            bridge.others_wanted.discard(document.uri)
            invoked = True
        choices = inline.SEVERAL if invoked else 1
        items = await inline.suggest(bridge, document, params.position, invoked, choices)
        # null leaves what is on screen, an empty list clears it.
        return None if items is None else inline.inline_items(document, params.position, items)


def _register_popup(server: AtlasdServer) -> None:
    bridge = server.bridge

    @server.feature(types.TEXT_DOCUMENT_COMPLETION)
    async def completion(params: types.CompletionParams) -> types.CompletionList | None:
        document = _opened(server, params.text_document.uri)
        if document is None:
            return None
        asked = params.context
        invoked = asked is None or asked.trigger_kind == types.CompletionTriggerKind.Invoked
        items = await inline.suggest(bridge, document, params.position, invoked)
        if items is None:
            return None
        return inline.popup_items(
            document, params.position, items, markdown=_renders_markdown(server)
        )


def _renders_markdown(server: AtlasdServer) -> bool:
    document = server.client_capabilities.text_document
    completion = document.completion if document else None
    item = completion.completion_item if completion else None
    return types.MarkupKind.Markdown in ((item and item.documentation_format) or [])


def _register_fates(server: AtlasdServer) -> None:
    bridge = server.bridge

    @server.feature("textDocument/didShowCompletion")
    def did_show(params: Any) -> None:
        if item := _item_id(params):
            id, before = bridge.shown.original(item)
            if not before:
                bridge.tell([Told(id, "shown")])

    @server.feature("textDocument/didPartiallyAcceptCompletion")
    async def did_accept_part(params: Any) -> None:
        length = getattr(params, "acceptedLength", None)
        if (item := _item_id(params)) and isinstance(length, int):
            text = str(getattr(params.item, "insertText", ""))
            await commands.accept_part(bridge, item, text, length)

    @server.feature("atlasd/wantOtherCompletions")
    def want_others(params: Any) -> None:
        """For clients whose own requests cannot say that somebody asked: Neovim 0.12's."""
        bridge.others_wanted.add(server.workspace.get_text_document(params.textDocument.uri).uri)

    @server.feature("atlasd/didDismissCompletion")
    def did_dismiss(params: Any) -> None:
        if item := _item_id(params):
            id, _ = bridge.shown.original(item)
            bridge.shown.settle(id)
            bridge.tell([Told(id, "dismissed")])


def _item_id(params: Any) -> str:
    """The suggestion's id from the item a client sends back; "" where it sends none: nobody but
    who writes that client could do anything about it."""
    try:
        return str(params.item.command.arguments[0])
    except (AttributeError, IndexError, KeyError, TypeError):
        return ""


def main() -> None:
    """Serve LSP on standard input and output until the editor ends."""
    if "--version" in sys.argv[1:]:
        print(f"atlasd-lsp {__version__}")
        return
    logging.basicConfig(
        stream=sys.stderr, level=logging.DEBUG if "--debug" in sys.argv[1:] else logging.ERROR
    )
    # Ctrl-C ends it at once: asyncio would wait for the thread that reads standard input.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    make_server().start_io()


if __name__ == "__main__":
    main()
