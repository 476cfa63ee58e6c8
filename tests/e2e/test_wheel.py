"""The wheel: built, installed elsewhere, and its bundled model answers from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's content, as pip installs it."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    tracked = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    # Built from a copy of the tracked files, so that nothing left in this tree gets in.
    for name in tracked.rstrip("\0").split("\0"):
        source = ROOT / name
        if source.is_file() and name.startswith(
            ("atlasd/", "lsp/", "kernels/", "setup.py", "pyproject", "README", "LICENSE")
        ):
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
    # What was compiled for this tree already is the same there.
    kept = Path("build", "native", "plain")
    if (ROOT / kept).is_dir():
        shutil.copytree(ROOT / kept, folder / "source" / kept)
    build = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, "."]
    subprocess.run(build, cwd=folder / "source", check=True)
    (wheel,) = folder.glob("*.whl")
    install = [*pip, "install", "-q", "--no-deps", "--target", folder / "site", wheel]
    subprocess.run(install, check=True)
    return folder


def test_the_wheel_carries_the_model_the_kernels_and_the_bridge(installed: Path) -> None:
    (wheel,) = installed.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "atlasd/models/bundled/target/model.safetensors" in names
    assert "atlasd/models/bundled/target/tokenizer.json" in names
    assert "atlasd_lsp/server.py" in names
    assert any(name.startswith("atlasd_kernels/cpu/_native") for name in names)
    assert not [name for name in names if "/work/" in name or name.startswith("tests")]


def test_the_bundled_model_answers_from_the_installed_wheel(installed: Path) -> None:
    file = installed / "sum.py"
    file.write_text("def add(left, right):\n    return left + \n")
    environ = os.environ | {
        "PYTHONPATH": str(installed / "site"),
        "ATLASD_HOME": str(installed / "home"),
        "HF_HUB_OFFLINE": "1",
    }

    def atlasd(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "atlasd.cli", *arguments],
            cwd=installed,
            env=environ,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import atlasd; print(atlasd.__file__)"
    found = subprocess.run(
        [sys.executable, "-c", where], cwd=installed, env=environ, capture_output=True, text=True
    )
    assert found.stdout.startswith(str(installed / "site"))
    atlasd("start", "--port", "0")
    try:
        status = atlasd("status", "--json")
        assert '"ready"' in status
        atlasd("complete", f"{file}:2:19", "--json")
    finally:
        atlasd("stop")
