"""Successive releases of Python packages, fetched by pip, as versions of a repository."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from bench.replay.workload import Version, folder_version

DEFAULT = (
    "rich==13.6.0,13.7.0,13.8.0,13.9.2",
    "starlette==0.36.3,0.37.2,0.38.0,0.40.0",
    "sqlite-utils==3.34,3.35,3.36,3.37",
    "click==8.0.0,8.1.0,8.1.7,8.2.0",
)
"""Well-known, small and pure Python. What drafts from text alone knows none of them; of those the
bundled model was not trained on rich and sqlite-utils."""


def fetch(wanted: str, folder: Path) -> tuple[str, list[Version]]:
    """Releases named like ``rich==13.6.0,13.7.0``, unpacked below ``folder`` (kept there)."""
    name, _, versions = wanted.partition("==")
    found = []
    for version in versions.split(","):
        target = folder / f"{name}-{version}"
        if not target.is_dir():
            _unpack(name, version, folder, target)
        found.append(folder_version(target))
    return name, found


def _unpack(name: str, version: str, folder: Path, target: Path) -> None:
    wheels = folder / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(wheels), f"{name}=={version}"]
    subprocess.run(command, check=True)
    stem = f"{name.replace('-', '_')}-{version}-".lower()
    wheel = next(path for path in wheels.glob("*.whl") if path.name.lower().startswith(stem))
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
