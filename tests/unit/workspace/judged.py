"""A workspace under test: where its segments go, and what a fresh look at its root would give."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from atlasd.engine.protocol import AddSegment, DropRepository, DropSegment
from atlasd.workspace.delivery import Segment
from atlasd.workspace.ignore import IgnoreRules
from atlasd.workspace.reading import read_bytes, readable_text
from atlasd.workspace.repository import Repository
from atlasd.workspace.scan import scan


def tokenize(texts: list[str]) -> list[list[int]]:
    """A token per character, so that segments can be read."""
    return [[ord(character) for character in text] for text in texts]


class Sink:
    """Keeps segments as the engine does: by repository and name."""

    def __init__(self) -> None:
        self.segments: dict[tuple[str, str], str] = {}
        self.messages = 0
        self.languages: dict[str, str | None] = {}

    def send(self, message: Segment) -> None:
        self.messages += 1
        if isinstance(message, AddSegment):
            text = message.tokens.decode("utf-32-le")
            self.segments[message.repository, message.segment] = text
            self.languages[message.segment] = message.language
        elif isinstance(message, DropSegment):
            self.segments.pop((message.repository, message.segment), None)
        elif isinstance(message, DropRepository):
            gone = message.repository
            self.segments = {k: v for k, v in self.segments.items() if gone not in (None, k[0])}

    def of(self, root: Path) -> dict[str, str]:
        return {name: text for (owner, name), text in self.segments.items() if owner == str(root)}


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def expected(root: Path) -> dict[str, str]:
    """What a fresh look at the root gives."""
    texts = {}
    for found in filter(None, scan(root, IgnoreRules(root))):
        data = read_bytes(root, found.path)
        text = None if data is None else readable_text(data)
        if text is not None:
            texts[found.path] = text
    return texts


def save_by_rename(path: Path, text: str) -> None:
    """As Vim and many others save."""
    beside = path.with_name(f".{path.name}.tmp")
    beside.write_text(text)
    beside.replace(path)


async def until(true: Callable[[], bool], seconds: float = 15.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def settled(sink: Sink, root: Path, repository: Repository, seconds: float = 15.0) -> None:
    """Wait until nothing is to be done, and find what a fresh look finds."""
    deadline = time.monotonic() + seconds
    while True:
        messages = sink.messages
        await asyncio.sleep(0.1)
        if repository.state != "watching" or sink.messages != messages:
            assert time.monotonic() < deadline, "it goes on and on"
            continue
        wanted = expected(root)
        if sink.of(root) == wanted and repository.files == sorted(wanted):
            return
        if time.monotonic() > deadline:
            assert sink.of(root) == wanted
            assert repository.files == sorted(wanted)
