"""The AMX path, whose tile instructions a scalar model stands in for: no machine that this was
written on has them. ``python -m atlasd_kernels.cpu.build --emulate`` builds the same library. The
real build is tested, too: its instructions are trapped one by one and run on the same model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from atlasd_kernels.cpu import build, instruction_sets

ROOT = Path(__file__).parents[2]
SUITE = {
    "test_cpu_logits.py": "bf16 and amx",
    "test_row_bits.py": "(prefill and amx) or tiles or beside",
}


BUILT = ROOT / "build" / "native"


def compiler_for_amx() -> str:
    compiler = build.compiler()
    if compiler is None or not build.knows(compiler, build.AMX):
        pytest.skip("no compiler that knows AMX")
    if "avx512" not in instruction_sets():
        pytest.skip("the rest of the AMX path is AVX-512, which this processor does not have")
    return compiler


@pytest.fixture(scope="module")
def emulated() -> Path:
    """The native library with emulated tiles, built where it is missing or older than its text."""
    compiler_for_amx()
    target = BUILT / build.library_name(emulate=True)
    return build.build(target, emulate=True, keep=BUILT / "plain")


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which the real build's tile instructions are trapped."""
    compiler = compiler_for_amx()
    if "amx" in instruction_sets():
        pytest.skip("this processor runs them")
    folder = tmp_path_factory.mktemp("trapped")
    library = build.build(folder / build.library_name(), offer=True, keep=BUILT / "plain")
    trap = folder / "trapped_tiles.so"
    source = str(Path(__file__).with_name("trapped_tiles.cpp"))
    command = [compiler, "-std=c++17", "-O2", "-shared", "-fPIC", "-ffp-contract=off", "-mfma"]
    subprocess.run([*command, f"-I{build.HERE}", source, "-o", str(trap), "-ldl"], check=True)
    return {"ATLASD_NATIVE_LIBRARY": str(library), "LD_PRELOAD": str(trap)}


def run(library: Path | str, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "ATLASD_NATIVE_LIBRARY": str(library), **environment},
        check=False,
    )


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("name", "selected"), SUITE.items())
def test_the_kernels_pass_their_tests_in_tiles(name: str, selected: str, emulated: Path) -> None:
    """Logits against transformers, row bits over every number of rows."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-k", selected]
    done = run(emulated, "-m", "pytest", *options, f"tests/kernels/{name}")
    assert done.returncode == 0, done.stdout[-4000:]
    assert "skipped" not in done.stdout.splitlines()[-1]


LIST = "from atlasd_kernels.cpu import instruction_sets as s; print(*s())"


def test_tiles_are_the_first_choice_where_they_are_right(emulated: Path) -> None:
    done = run(emulated, "-c", LIST)
    assert done.stdout.split()[0] == "amx"
    assert done.stderr == ""


def test_tiles_that_compute_wrongly_are_not_used_and_one_line_says_so(emulated: Path) -> None:
    done = run(emulated, "-c", LIST, ATLASD_EMULATE_FAULT="1")
    assert done.stdout.split()[0].startswith("avx512")
    assert len(done.stderr.splitlines()) == 1
    assert "AMX" in done.stderr


@pytest.mark.timeout(600)
@pytest.mark.parametrize("selected", ["prefill and amx", "tiles"])
def test_the_instructions_that_the_compiler_made_are_right(
    selected: str, trapped: dict[str, str]
) -> None:
    """Prefill equals decoding in every format; integers give the bits of vectors."""
    options = ["-x", "-q", "-p", "no:cacheprovider", "-k", selected]
    environment = {"LD_PRELOAD": trapped["LD_PRELOAD"]}
    library = trapped["ATLASD_NATIVE_LIBRARY"]
    done = run(library, "-m", "pytest", *options, "tests/kernels/test_row_bits.py", **environment)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "skipped" not in done.stdout.splitlines()[-1]
    found = re.search(r"tile instructions run: (\d+)", done.stderr)
    assert found is not None
    assert int(found[1]) > 1000
