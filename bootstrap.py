"""Make ``.venv`` from nothing but Python: locked dependencies, and the torch this machine needs.

Run by every make target; a second run that finds nothing changed ends within milliseconds.

torch stays outside the lock because its build depends on the machine. In order: a torch of the
supported range that the base Python already has; with an NVIDIA GPU, the index's ordinary build;
without one, the newest build on offer that does not pull in CUDA libraries; and only where no such
build is on offer, the ordinary one. ``ATLASD_TORCH`` names a requirement (``torch==2.13.0``) or a
wheel file that is taken instead.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / ".atlasd-stamp"
TORCH_VERSIONS = ("2.15.0", "2.14.0", "2.13.0", "2.12.0", "2.11.0")
TORCH_RANGE = ((2, 11), (2, 16))


def say(text: str) -> None:
    print(f"\033[1m==>\033[0m {text}" if sys.stdout.isatty() else f"==> {text}", flush=True)


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(part) for part in command], check=True, text=True, **options)  # type: ignore[call-overload,no-any-return]


def pip(*arguments: str) -> None:
    """pip inside the venv; prints what it installs, keeps quiet about the rest."""
    run(PYTHON, "-m", "pip", "--disable-pip-version-check", *arguments, cwd=ROOT)


def fingerprint() -> str:
    """Changes when anything that decides the environment's content changes."""
    digest = hashlib.sha256(sys.version.encode())
    native = ROOT / "kernels" / "atlasd_kernels" / "cpu"
    sources = [
        ROOT / "requirements.lock",
        ROOT / "pyproject.toml",
        ROOT / "setup.py",
        native / "build.py",
        *sorted(native.glob("*.cpp")),
        *sorted(native.glob("*.h")),
    ]
    for source in sources:
        if source.is_file():
            digest.update(source.read_bytes())
    return digest.hexdigest()


def has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists() or shutil.which("nvidia-smi") is not None


def base_torch() -> str | None:
    """Version of a supported torch in the Python that runs this script, or None."""
    code = "import importlib.metadata as m; print(m.version('torch'))"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    version = found.stdout.strip()
    if found.returncode or not version:
        return None
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    return version if TORCH_RANGE[0] <= numbers < TORCH_RANGE[1] else None


def needs_cuda(requirement: str) -> bool | None:
    """Whether installing ``requirement`` pulls in CUDA libraries; None where it is not on offer.

    Asks pip for its installation report without installing: only metadata is read.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["--quiet", "--dry-run", "--no-deps", "--ignore-installed"]
        options += ["--only-binary=:all:", "--report", str(report)]
        answer = subprocess.run(
            [PYTHON, "-m", "pip", "install", *options, requirement],
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode or not report.exists():
            return None
        metadata = json.loads(report.read_text())["install"][0]["metadata"]
    return any("nvidia" in need or "cuda" in need for need in metadata.get("requires_dist", []))


def torch_requirement() -> str:
    if chosen := os.environ.get("ATLASD_TORCH"):
        return chosen
    newest = (
        f"torch>={TORCH_RANGE[0][0]}.{TORCH_RANGE[0][1]},<{TORCH_RANGE[1][0]}.{TORCH_RANGE[1][1]}"
    )
    if has_gpu():
        return newest
    say("looking for a torch build without CUDA (this machine has no NVIDIA GPU)")
    for version in TORCH_VERSIONS:
        if needs_cuda(f"torch=={version}") is False:
            return f"torch=={version}"
    say("none on offer here: taking the ordinary build, which is large")
    return newest


def install() -> None:
    system_torch = base_torch() if "ATLASD_TORCH" not in os.environ else None
    if not PYTHON.exists():
        say(f"making .venv with Python {sys.version.split()[0]}")
        options = ["--system-site-packages"] if system_torch else []
        try:
            run(sys.executable, "-m", "venv", *options, VENV)
        except subprocess.CalledProcessError:
            sys.exit("python -m venv failed: on Debian and Ubuntu, apt install python3-venv")
    say("installing the locked dependencies (hashes checked)")
    pip("install", "-qq", "--require-hashes", "--only-binary=:all:", "-r", "requirements.lock")
    if system_torch:
        say(f"using the torch {system_torch} that is installed")
    elif base_is_missing_torch():
        requirement = torch_requirement()
        say(f"installing {requirement}")
        pip("install", "-qq", requirement)
    say("installing atlasd itself and building its CPU kernels")
    pip("install", "-qq", "--no-deps", "--no-build-isolation", "--editable", ".")


def base_is_missing_torch() -> bool:
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
    return subprocess.run([PYTHON, "-c", code], check=False).returncode == 0


def main() -> None:
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted and PYTHON.exists():
        return
    began = time.monotonic()
    try:
        install()
    except subprocess.CalledProcessError as error:
        failed = " ".join(error.cmd)
        sys.exit(f"bootstrap failed at: {failed}\nMend what it says above and run make again.")
    except KeyboardInterrupt:
        sys.exit("interrupted; run make again to go on")
    STAMP.write_text(wanted)
    say(f"ready in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
