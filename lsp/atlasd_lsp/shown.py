"""The suggestions on screen, per document, and the edits that decide them."""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass

from lsprotocol import types
from pygls.workspace import PositionCodec

from atlasd_lsp.fates import Edit, Pending, Told, follow
from atlasd_lsp.lines import lines_of

_REMEMBERED = 200


@dataclass
class _OnScreen:
    source: str
    suggestions: list[Pending]


class Shown:
    """Follows each document's suggestions through its edits.

    The rest of a suggestion that was typed along, or accepted in part, comes back from the daemon
    under a new id; it counts as the suggestion it is the rest of.
    """

    def __init__(self) -> None:
        self._documents: dict[str, _OnScreen] = {}
        self._same: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._accepted: deque[str] = deque(maxlen=_REMEMBERED)
        """Told of as accepted, so that it is told once."""

    def show(self, uri: str, source: str, suggestions: list[Pending]) -> list[Told]:
        """New suggestions replace a document's old ones, which are superseded."""
        for one in suggestions:
            one.start -= source.count("\r\n", 0, one.start)
        before = self._documents.pop(uri, None)
        old = [one for one in before.suggestions if not one.over] if before else []
        kept = [self._continued(one, old) or one for one in suggestions]
        if kept:
            self._documents[uri] = _OnScreen(source, kept)
        return [
            Told(one.id, "superseded")
            for one in old
            if not one.accepted and not any(one is other for other in kept)
        ]

    def _continued(self, new: Pending, old: list[Pending]) -> Pending | None:
        for one in old:
            if one.rest == new.text and one.start + one.known == new.start:
                self._same[new.id] = (one.id, one.known)
                if len(self._same) > _REMEMBERED:
                    self._same.popitem(last=False)
                one.replace_right = new.replace_right
                return one
        return None

    def original(self, id: str) -> tuple[str, int]:
        """The suggestion that ``id`` is the rest of, and how much came before it: itself and 0
        for a suggestion in its own right."""
        return self._same.get(id, (id, 0))

    def told_by_client(self, id: str, length: int | None) -> None:
        """The client told that ``length`` code points (None: all) were accepted: the edits that
        bring them tell nothing new."""
        for screen in self._documents.values():
            for pending in screen.suggestions:
                if pending.id == id:
                    pending.reported = len(pending.text) if length is None else length
                    pending.accepted = max(pending.accepted, 1)

    def changed(
        self,
        uri: str,
        changes: list[types.TextDocumentContentChangeEvent],
        codec: PositionCodec,
    ) -> list[Told]:
        """A document changed: the fates this tells of."""
        screen = self._documents.get(uri)
        if screen is None:
            return []
        edits = []
        for change in changes:
            edit = _edit(screen.source, change, codec)
            edits.append(_with_plain_line_ends(edit, screen.source))
            screen.source = (
                screen.source[: edit.start]
                + edit.inserted
                + screen.source[edit.start + edit.removed :]
            )
        told = [one for pending in screen.suggestions for one in follow(pending, edits)]
        decided = [one for one in told if one.fate != "dismissed"]
        if decided:
            # Alternatives that were not chosen are not worth a word of their own.
            told = decided
            self._accepted.extend(one.id for one in told if one.fate == "accepted")
        if all(pending.over for pending in screen.suggestions):
            del self._documents[uri]
        return told

    def accepted(self, id: str) -> list[Told]:
        """The client told that all of a suggestion was accepted. Whether the edit that brings it
        comes before or after that, one of them tells it."""
        first, _ = self.original(id)
        self.settle(first)
        if first in self._accepted:
            return []
        self._accepted.append(first)
        return [Told(first, "accepted")]

    def settle(self, id: str) -> None:
        """The client told the end of this suggestion."""
        for screen in self._documents.values():
            for pending in screen.suggestions:
                if pending.id == id:
                    pending.over = True

    def close(self, uri: str) -> list[Told]:
        """The document was closed: what was undecided is dismissed."""
        screen = self._documents.pop(uri, None)
        left = screen.suggestions if screen else []
        return [Told(one.id, "dismissed") for one in left if not one.over and not one.accepted]


def _edit(source: str, change: types.TextDocumentContentChangeEvent, codec: PositionCodec) -> Edit:
    if not isinstance(change, types.TextDocumentContentChangePartial):
        return _whole_change(source, change.text)
    lines = lines_of(source)
    start = _offset(lines, change.range.start, codec)
    end = _offset(lines, change.range.end, codec)
    return Edit(start, end - start, change.text)


def _with_plain_line_ends(edit: Edit, source: str) -> Edit:
    """The edit as it were if lines ended in one character: suggestions come that way, and an
    editor inserts them as the document has its line ends."""
    start, end = edit.start, edit.start + edit.removed
    return Edit(
        start - source.count("\r\n", 0, start),
        edit.removed - source.count("\r\n", start, end),
        edit.inserted.replace("\r\n", "\n"),
    )


def _offset(lines: list[str], position: types.Position, codec: PositionCodec) -> int:
    before = sum(map(len, lines[: position.line]))
    if position.line >= len(lines):
        return before
    return before + codec.position_from_client_units(lines, position).character


def _whole_change(before: str, after: str) -> Edit:
    """The one edit between two texts, for clients that send whole documents."""
    most = min(len(before), len(after))
    start = next((i for i in range(most) if before[i] != after[i]), most)
    end = next((i for i in range(most - start) if before[-1 - i] != after[-1 - i]), most - start)
    return Edit(start, len(before) - end - start, after[start : len(after) - end])
