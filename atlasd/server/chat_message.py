"""One choice of a chat answer in the making: what was said and called so far."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from atlasd.completion.calls import Argued, Called, CallReader, Piece, Said
from atlasd.completion.generate import Chunk, ScoredToken


@dataclass
class Message:
    """One choice in the making."""

    reader: CallReader | None
    text: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)
    scores: list[ScoredToken] = field(default_factory=list)

    def feed(self, chunk: Chunk | None) -> Iterable[Piece]:
        """What a chunk says; None is the end of the text."""
        if self.reader is None:
            pieces: list[Piece] = [Said(chunk.text)] if chunk is not None else []
        else:
            pieces = list(self.reader.flush() if chunk is None else self.reader.feed(chunk.text))
        for piece in pieces:
            self._take(piece)
        return pieces

    def _take(self, piece: Piece) -> None:
        match piece:
            case Said(text):
                self.text += text
            case Called(_, id, name):
                function = {"name": name, "arguments": ""}
                self.calls.append({"id": id, "type": "function", "function": function})
            case Argued(index, text):
                self.calls[index]["function"]["arguments"] += text

    @property
    def body(self) -> dict[str, Any]:
        told: dict[str, Any] = {"role": "assistant", "content": self.text, "refusal": None}
        if self.calls:
            told |= {"content": self.text or None, "tool_calls": self.calls}
        return told

    def ended(self, reason: str) -> str:
        return "tool_calls" if self.calls and reason == "stop" else reason
