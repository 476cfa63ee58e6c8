"""What several tests of the editors begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.editing import Editing
from tests.e2e.neovim import VERSIONS


@pytest.fixture(params=VERSIONS)
def editing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Editing]:
    session = Editing(request.param, tmp_path)
    yield session
    session.close()
