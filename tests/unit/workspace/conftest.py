"""A root, a workspace with it, and where its segments go."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from atlasd.workspace.workspace import Workspace
from tests.unit.workspace.judged import Sink, tokenize


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "code" / "app"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest_asyncio.fixture
async def workspace(tmp_path: Path, sink: Sink) -> AsyncIterator[Workspace]:
    opened = Workspace(send=sink.send, cache=tmp_path / "cache")
    opened.use_tokenizer(tokenize, "characters")
    yield opened
    await opened.stop()
    assert not [t.name for t in threading.enumerate() if t.name.startswith("atlasd-index")]
