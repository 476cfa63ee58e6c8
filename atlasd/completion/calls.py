"""An answer as it comes, split into what the model says and what it calls."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field

from atlasd.completion.tools import Calling


@dataclass(frozen=True)
class Said:
    """Text for the reader."""

    text: str


@dataclass(frozen=True)
class Called:
    """A call begins."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class Argued:
    """A piece of a call's arguments, which together are a JSON object."""

    index: int
    text: str


Piece = Said | Called | Argued


@dataclass
class _Json:
    """Finds where a JSON object ends that comes in pieces."""

    depth: int = 0
    quoted: bool = False
    escaped: bool = False

    def end(self, text: str) -> int | None:
        """The length of ``text`` up to the end, None if it goes on."""
        for at, character in enumerate(text):
            if self.escaped:
                self.escaped = False
            elif self.quoted:
                self.escaped = character == "\\"
                self.quoted = character != '"'
            elif character == '"':
                self.quoted = True
            elif character in "{[":
                self.depth += 1
            elif character in "}]":
                self.depth -= 1
                if not self.depth:
                    return at + 1
        return None


@dataclass
class CallReader:
    """Reads one answer that is held to ``tools.grammar``. What it gives does not depend on how
    the text is cut into chunks, but for the cuts."""

    calling: Calling
    calls: int = 0
    _held: str = ""
    _state: str = "text"
    _spoke: bool = False
    _json: _Json = field(default_factory=_Json)

    def feed(self, text: str) -> Iterator[Piece]:
        """What is certain by now."""
        self._held += text
        before = ""
        while before != (before := f"{self._state} {len(self._held)}"):
            match self._state:
                case "text":
                    yield from self._text()
                case "header":
                    yield from self._header()
                case "arguments":
                    yield from self._arguments()
                case "after":
                    self._after()

    def flush(self) -> Iterator[Piece]:
        """What was held back, now that nothing follows."""
        unsaid = self._state == "text" or (not self.calling.opening and not self.calls)
        if unsaid and self._held:
            yield Said(self._held)
        self._held = ""

    def _text(self) -> Iterator[Piece]:
        opening = self.calling.opening
        if not opening and self._held.startswith("{") and not self._spoke:
            self._state = "header"
            return
        at = self._held.find(opening) if opening else -1
        if at >= 0:
            # White space before a call belongs to neither.
            shown, self._state = self._held[:at].rstrip(), "header"
            self._held = self._held[at + len(opening) :]
        else:
            shown = self._certain(opening) if opening else self._held
            self._held = self._held[len(shown) :]
        if shown:
            self._spoke = True
            yield Said(shown)

    def _certain(self, opening: str) -> str:
        """Text that cannot be the beginning of a marker, or the white space before one."""
        lengths = range(len(opening) - 1, 0, -1)
        keep = next((n for n in lengths if self._held.endswith(opening[:n])), 0)
        return self._held[: len(self._held) - keep].rstrip()

    def _header(self) -> Iterator[Piece]:
        found = re.match(rf'\s*\{{"name": ("(?:[^"\\]|\\.)*"), "{self.calling.key}": ', self._held)
        if found:
            self._held = self._held[found.end() :]
            self._state, self._json = "arguments", _Json()
            self.calls += 1
            yield Called(self.calls - 1, f"call_{secrets.token_hex(12)}", json.loads(found[1]))

    def _arguments(self) -> Iterator[Piece]:
        end = self._json.end(self._held)
        piece = self._held[:end]
        if end is not None:
            self._state = "after"
        self._held = self._held[len(piece) :]
        if piece:
            yield Argued(self.calls - 1, piece)

    def _after(self) -> None:
        """Between calls there is nothing but markers."""
        opening = self.calling.opening
        at = self._held.find(opening) if opening else -1
        if at >= 0:
            self._held, self._state = self._held[at + len(opening) :], "header"
