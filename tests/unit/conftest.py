"""What many of these tests begin with: a daemon that is served, a completer over a scripted engine.

Imports stand inside the fixtures, so that a test that needs none of them does not pay for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from atlasd.completion.completer import Completer
    from atlasd.paths import Paths
    from tests.fake_engine import FakeEngine
    from tests.served import House
    from tests.unit.completing import Store


@pytest.fixture
def folders(tmp_path: Path) -> Paths:
    """Those of a daemon that does not run."""
    from atlasd.paths import paths

    made = paths({"ATLASD_HOME": str(tmp_path)})
    made.create()
    return made


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    from tests.served import served

    async with served(tmp_path) as opened:
        yield opened


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    from tests.fake_engine import FakeEngine

    made = FakeEngine()
    yield made
    await made.stop()


@pytest.fixture
def store() -> Store:
    from tests.unit.completing import Store

    return Store()


@pytest.fixture
async def completer(engine: FakeEngine, store: Store) -> AsyncIterator[Completer]:
    from tests.unit.completing import make_completer

    made = make_completer(engine, store)
    yield made
    made.clear()
