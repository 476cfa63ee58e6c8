"""What many of these tests begin with: a daemon that is served, a completer over a scripted engine,
a learner that has learned.

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


@pytest.fixture(scope="session")
def taught_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a learner that was taught ``SUCCESSOR``; for ``taught`` to copy."""
    from tests.unit.learners import SUCCESSOR, learner, serve, texts, work

    folder = tmp_path_factory.mktemp("taught") / "adapter"
    one = learner(folder)
    for first in range(0, 100, 20):
        serve(one, texts(SUCCESSOR, 20, first))
        work(one)
    one.save()
    return folder


@pytest.fixture
def taught(taught_once: Path, tmp_path: Path) -> Path:
    """A folder of the test's own of a learner that was taught ``SUCCESSOR``."""
    import shutil

    return Path(shutil.copytree(taught_once, tmp_path / "adapter"))
