"""A database in a folder of its own, for every test of the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atlasd.store.database import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "atlasd.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(path)
    yield opened
    await opened.close()
