"""What tests of the completer share: a workspace, a store, a completer over a scripted engine."""

from __future__ import annotations

import asyncio
from pathlib import Path

from atlasd.completion.completer import Completer
from atlasd.completion.request import CompletionRequest
from atlasd.errors import StoreError
from atlasd.store.rows import StoredCompletion
from tests.fake_engine import FakeEngine
from tests.unit.byte_tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()
PREFIX = "import os\n\n\ndef area(width, height):\n    "
REQUEST = CompletionRequest(PREFIX, "\n", path="/repo/shapes.py", document="shapes", trusted=True)


class Store:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.rows: list[StoredCompletion] = []
        self.fates: list[tuple[str, str, int | None]] = []
        self.failures = 0
        """So many writes fail before one succeeds."""

    async def add_completion(self, completion: StoredCompletion) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("The disk is full.")
        self.rows.append(completion)

    async def set_fate(self, id: str, fate: str, accepted_length: int | None = None) -> str:
        self.fates.append((id, fate, accepted_length))
        return ""


class Repository:
    root = Path("/repo")
    name = "shapes"
    trusted = True
    files = ("shapes.py",)

    def withholds(self, path):
        return False

    def text(self, path):
        return None

    def defining(self, names, limit=8):
        return []

    def recent(self, limit=8):
        return []

    def similar(self, identifiers, exclude=(), limit=4):
        return []


class Workspace:
    def repository_of(self, path):
        return Repository() if str(path).startswith("/repo/") else None


def make_completer(engine: FakeEngine, store: Store) -> Completer:
    return Completer(
        engine, TOKENIZER, Workspace(), store, "fake", config={"atlasd": {"fim_orders": ["spm"]}}
    )


def say(*texts: str) -> list[list[int]]:
    return [TOKENIZER.encode(text) for text in texts]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)
