"""A completion as the daemon sees it, whichever editor or API asked for it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from atlasd.engine.protocol import Sampling, StreamStats

MOST_OF_LINE = 1000
"""Characters of a line that are kept; lines of generated files have no end."""


@dataclass(frozen=True)
class Piece:
    """A piece of context from another place: shown to the model before the file itself."""

    path: str
    text: str


@dataclass(frozen=True)
class Indent:
    """How the editor indents: columns of one level, and whether they are spaces."""

    size: int = 4
    spaces: bool = True


@dataclass(frozen=True)
class CompletionRequest:
    """What stands around a cursor, and how to complete it."""

    prefix: str
    """All text of the document before the cursor."""
    suffix: str = ""
    """All text after it."""
    path: str | None = None
    """Path of the document: absolute, or relative to the repository; None for unsaved ones."""
    language: str | None = None
    """LSP language id; derived from the path where it is not given."""
    repository: str | None = None
    """Root folder of the repository the document belongs to."""
    pieces: tuple[Piece, ...] = ()
    """Context the client brings itself (llama.cpp's ``input_extra``)."""
    gather: bool = True
    """Gather context from the workspace as well."""
    max_tokens: int = 128
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    single_line: bool | None = None
    """None: decided from what stands right of the cursor."""
    trim: bool = True
    """False gives the model's text as it is (raw APIs)."""
    client: str = ""
    """Name of the editor or API, for the store."""
    trusted: bool = False
    """False: nothing is stored or learned, no other file is read. Whoever makes a request has to
    know, or has to be asking for somebody who does."""
    max_ms: float = 0.0
    """End after this many milliseconds of decoding once a whole line is there; 0: no limit."""
    indent: Indent | None = None
    """The editor's indentation; None: read off the document."""
    invoked: bool = False
    """Asked for by hand: even a suggestion of one character is shown."""
    drafting: bool = True
    """False: decode plainly. The text is the same."""
    document: str | None = None
    """Key for cancel-previous: a newer request with the same key replaces this one."""

    def without_document(self) -> CompletionRequest:
        """What is worth keeping of a request: of the text only the cursor's line, left of it.
        Hundreds are kept, and documents are long."""
        line = self.prefix[self.prefix.rfind("\n") + 1 :][-MOST_OF_LINE:]
        return replace(self, prefix=line, suffix="", pieces=())

    def with_plain_line_ends(self) -> CompletionRequest:
        """Models write line feeds, and editors insert them as the file has them."""
        if "\r" not in self.prefix and "\r" not in self.suffix:
            return self
        return replace(
            self,
            prefix=self.prefix.replace("\r\n", "\n"),
            suffix=self.suffix.replace("\r\n", "\n"),
        )


@dataclass(frozen=True)
class Completion:
    """A cleaned suggestion to insert at the cursor."""

    id: str
    text: str
    replace_right: int = 0
    """Characters right of the cursor (on its line) that the text replaces."""
    source: Literal["model", "type-through", "ahead"] = "model"
    finish_reason: str = "stop"
    stats: StreamStats = field(default_factory=StreamStats)
    prompt_tokens: int = 0
    model: str = ""
    trimmed_by: tuple[str, ...] = ()
    """Names of the trimming rules that changed or ended the text, for ``atlasd why``."""
    total_ms: float = 0.0
