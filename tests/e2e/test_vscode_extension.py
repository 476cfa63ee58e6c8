"""The VS Code extension: its own unit tests, and the .vsix with what it must carry."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "editor-extensions" / "vscode"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the extension with its locked packages installed."""
    if shutil.which("npm") is None:
        pytest.skip("no npm on PATH")
    folder = tmp_path_factory.mktemp("vscode") / "extension"
    leave = shutil.ignore_patterns("node_modules", "dist", "*.vsix", "e2e")
    shutil.copytree(SOURCE, folder, ignore=leave)
    npm(folder, "ci", "--no-audit", "--no-fund")
    return folder


def npm(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["npm", *arguments], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_unit_tests_pass(extension: Path) -> None:
    assert "# fail 0" in npm(extension, "test")


def test_the_vsix_is_built_and_carries_no_sources(extension: Path) -> None:
    npm(extension, "run", "package")
    names = zipfile.ZipFile(extension / "atlasd.vsix").namelist()
    assert "extension/dist/extension.js" in names
    assert "extension/package.json" in names
    assert not [name for name in names if name.endswith((".ts", ".map")) or "node_modules" in name]


def test_the_lock_file_names_no_registry() -> None:
    assert '"resolved"' not in (SOURCE / "package-lock.json").read_text()
