"""What this machine can hold, asked of the system without loading torch."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass

from atlasd.commands.output import size


@dataclass(frozen=True)
class Memory:
    """Memory that a model can use."""

    bytes: int
    device: str

    @property
    def described(self) -> str:
        return f"{self.device} with {size(self.bytes)}"


def memory() -> Memory:
    """The largest GPU's memory, or the machine's where there is no GPU."""
    found = gpus()
    if found:
        name, held = max(found, key=lambda one: one[1])
        return Memory(held, name)
    import psutil  # type: ignore[import-untyped]

    return Memory(int(psutil.virtual_memory().total), "this CPU")


def gpus() -> list[tuple[str, int]]:
    """(name, bytes) of every NVIDIA GPU, from its driver's own tool."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    asked = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [line.rsplit(",", 1) for line in said.strip().splitlines() if "," in line]
    return [(name.strip(), int(held) * 2**20) for name, held in rows if held.strip().isdigit()]
