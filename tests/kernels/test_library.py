"""A library that does not fit the Python beside it is not used, by any part."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from atlasd_kernels.cpu import library
from atlasd_kernels.cpu.multistep import take_steps
from atlasd_kernels.cpu.plan import plan_library
from atlasd_kernels.cpu.text import text_library

PARTS = (library._load, text_library, plan_library, take_steps)


@pytest.fixture
def afresh() -> Iterator[None]:
    """Nothing is known of the library, before and after."""
    for part in PARTS:
        part.cache_clear()
    yield
    for part in PARTS:
        part.cache_clear()


@pytest.mark.usefixtures("afresh")
def test_a_library_of_another_version_serves_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    loads, reason = library.available()
    if not loads:
        pytest.skip(f"no native library here: {reason}")
    for part in PARTS:
        part.cache_clear()
    monkeypatch.setattr(library, "VERSION", library.VERSION + 1)
    loads, reason = library.available()
    assert not loads
    assert "build it again" in reason
    assert (text_library(), plan_library(), take_steps()) == (None, None, None)


@pytest.mark.usefixtures("afresh")
def test_one_that_fits_serves_all() -> None:
    loads, reason = library.available()
    if not loads:
        pytest.skip(f"no native library here: {reason}")
    assert None not in (text_library(), plan_library(), take_steps())


@pytest.mark.parametrize("name", ["portable", "nonsense"])
def test_a_lesser_instruction_set_can_be_asked_for(name: str) -> None:
    """As another processor would have it; what this one lacks is said and left out."""
    loads, reason = library.available()
    if not loads:
        pytest.skip(f"no native library here: {reason}")
    code = "from atlasd_kernels.cpu import instruction_sets; print(*instruction_sets())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ATLASD_ISA": name},
        capture_output=True,
        text=True,
        check=True,
    )
    offered = library.instruction_sets()
    assert done.stdout.split() == (["portable"] if name == "portable" else offered)
    assert ("ATLASD_ISA" in done.stderr) == (name == "nonsense")
