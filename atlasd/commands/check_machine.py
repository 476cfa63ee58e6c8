"""What ``atlasd doctor`` checks of the machine and of what is installed on it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from atlasd.commands.finding import Finding
from atlasd.commands.hardware import gpus
from atlasd.commands.output import size
from atlasd.paths import Paths

WATCHES_WANTED = 65536


def python(folders: Paths) -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"{version} at {sys.executable}")


def torch(folders: Paths) -> Iterator[Finding]:
    try:
        version = metadata.version("torch")
    except metadata.PackageNotFoundError:
        yield Finding("torch", "bad", "not installed", "pip install 'torch>=2.11,<2.16'")
        return
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    if (2, 11) <= numbers < (2, 16):
        yield Finding("torch", "ok", version)
    else:
        yield Finding(
            "torch", "bad", f"{version} is not 2.11 to 2.15", "pip install 'torch>=2.11,<2.16'"
        )


# In a process of its own: the daemon's side imports no kernels.
KERNELS = """
import json
from atlasd_kernels import cpu
loads, reason = cpu.available()
print(json.dumps([cpu.instruction_sets()[0] if loads else None, reason]))
"""


def kernels(folders: Paths) -> Iterator[Finding]:
    done = subprocess.run(
        [sys.executable, "-c", KERNELS], capture_output=True, text=True, timeout=60, check=False
    )
    best, reason = (
        json.loads(done.stdout) if done.returncode == 0 else (None, done.stderr.strip()[-200:])
    )
    if best:
        # One line there says which instructions of the processor cannot be used.
        said = f"{best}; {done.stderr.strip()}" if done.stderr.strip() else best
        yield Finding("native CPU kernels", "ok", f"they load; instruction set: {said}")
    else:
        yield Finding(
            "native CPU kernels",
            "note",
            f"{reason}; the slower torch path is used on the CPU",
            "Install a C++ compiler (g++), then install atlasd again.",
        )


def hardware(folders: Paths) -> Iterator[Finding]:
    found = gpus()
    said = ", ".join(f"{name} ({size(held)})" for name, held in found)
    yield Finding("GPU", "ok" if found else "note", said or "none found; the CPU is used")


def watches(folders: Paths) -> Iterator[Finding]:
    limit = Path("/proc/sys/fs/inotify/max_user_watches")
    if limit.exists() and int(limit.read_text()) < WATCHES_WANTED:
        yield Finding(
            "file watching",
            "note",
            f"only {limit.read_text().strip()} folders can be watched",
            f"sudo sysctl fs.inotify.max_user_watches={8 * WATCHES_WANTED}",
        )


def editors(folders: Paths) -> Iterator[Finding]:
    names = {"nvim": "neovim", "code": "vscode", "codium": "vscode", "hx": "helix", "zed": "zed"}
    found = [
        f"{tool} (atlasd connect {client})" for tool, client in names.items() if shutil.which(tool)
    ]
    yield Finding("editors", "ok" if found else "note", ", ".join(found) or "none found on PATH")
    beside = Path(sys.executable).with_name("atlasd-lsp")
    bridge = shutil.which("atlasd-lsp")
    if bridge:
        yield Finding("bridge", "ok", bridge)
    elif beside.exists():
        yield Finding(
            "bridge", "note", f"{beside} is not on PATH", f'export PATH="{beside.parent}:$PATH"'
        )
    else:
        yield Finding("bridge", "bad", "atlasd-lsp is not installed", "Install atlasd again.")
