"""``textDocument/inlineCompletion``, and ``textDocument/completion`` for clients without it."""

from __future__ import annotations

import asyncio
from typing import Any

from lsprotocol import types
from pygls.workspace import TextDocument

from atlasd_lsp.bridge import Bridge
from atlasd_lsp.connection import DaemonRefused, DaemonUnreachable
from atlasd_lsp.cursor import around, file_path, offset_at, owning_root, range_right
from atlasd_lsp.fates import Pending, Told

ACCEPT_COMMAND = "atlasd.accept"
SEVERAL = 3
"""Suggestions for who asks by hand: the usual one, and others to step through."""


async def suggest(
    bridge: Bridge,
    document: TextDocument,
    position: types.Position,
    invoked: bool,
    choices: int = 1,
) -> list[dict[str, Any]] | None:
    """The daemon's suggestions for a cursor; None when the document moved on meanwhile.

    A newer request for the same document cancels this one, in the daemon as well.
    """
    uri, version = document.uri, document.version
    if (older := bridge.in_flight.get(uri)) is not None and not older.done():
        older.cancel()
    source = document.source
    offset = offset_at(document, position)
    path = file_path(uri)
    prefix, suffix = around(source, offset)
    body: dict[str, Any] = {
        "prefix": prefix,
        "suffix": suffix,
        "path": path,
        "language": document.language_id,
        "repository": owning_root(path, bridge.roots),
        "trusted": bridge.options.trusted,
        "client": bridge.editor,
        "document": uri,
        "version": version,
        "trigger": "invoked" if invoked else "automatic",
    }
    if choices > 1:
        body["choices"] = choices
    if bridge.options.max_tokens:
        body["max_tokens"] = bridge.options.max_tokens
    asking = asyncio.ensure_future(bridge.call("/atlasd/v1/complete", body))
    bridge.in_flight[uri] = asking
    try:
        answer = await asking
    except asyncio.CancelledError:
        asking.cancel()
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise
        return None
    except (DaemonUnreachable, DaemonRefused) as error:
        bridge.problem = str(error)
        return []
    finally:
        if bridge.in_flight.get(uri) is asking:
            del bridge.in_flight[uri]
    if document.version != version or answer.get("superseded"):
        return None
    items: list[dict[str, Any]] = answer.get("items", [])
    pending = [
        Pending(one["id"], one["text"], offset, one.get("replace_right", 0)) for one in items
    ]
    told = bridge.shown.show(uri, source, pending)
    if not bridge.options.reports_shown and items:
        first, before = bridge.shown.original(items[0]["id"])
        if not before:
            told.append(Told(first, "shown"))
    bridge.tell(told)
    return items


def inline_items(
    document: TextDocument, position: types.Position, items: list[dict[str, Any]]
) -> types.InlineCompletionList:
    """Ghost text at the cursor; accepting it executes ``atlasd.accept`` with its id."""
    return types.InlineCompletionList(
        items=[
            types.InlineCompletionItem(
                insert_text=one["text"],
                range=range_right(document, position, one.get("replace_right", 0)),
                command=_accept(one),
            )
            for one in items
        ]
    )


def popup_items(
    document: TextDocument,
    position: types.Position,
    items: list[dict[str, Any]],
    *,
    markdown: bool,
) -> types.CompletionList:
    """The same as entries of a completion menu, for clients that know only that; ``markdown``
    says whether the client renders it beside the menu."""
    return types.CompletionList(
        is_incomplete=True,
        items=[
            types.CompletionItem(
                label=_label(one["text"]),
                kind=types.CompletionItemKind.Text,
                detail="atlasd",
                documentation=_documentation(one["text"], document.language_id, markdown),
                sort_text="0",
                filter_text=_word_before(document, position) + one["text"],
                text_edit=types.TextEdit(
                    range=range_right(document, position, one.get("replace_right", 0)),
                    new_text=one["text"],
                ),
                command=_accept(one),
            )
            for one in items
        ],
    )


def _accept(item: dict[str, Any]) -> types.Command:
    return types.Command(title="Accepted", command=ACCEPT_COMMAND, arguments=[item["id"]])


def _documentation(text: str, language: str | None, markdown: bool) -> str | types.MarkupContent:
    if not markdown:
        return text
    return types.MarkupContent(types.MarkupKind.Markdown, f"```{language or ''}\n{text}\n```")


def _label(text: str) -> str:
    first, *rest = text.strip().split("\n")
    return f"{first} …" if rest else first


def _word_before(document: TextDocument, position: types.Position) -> str:
    lines = document.lines
    if position.line >= len(lines):
        return ""
    local = document.position_codec.position_from_client_units(lines, position)
    before = lines[position.line][: local.character]
    word = len(before)
    while word and (before[word - 1].isalnum() or before[word - 1] == "_"):
        word -= 1
    return before[word:]
