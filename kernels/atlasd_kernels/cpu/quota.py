"""The share of the processors that a container's limit leaves this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path


def granted_processors(
    mounted: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """Whole processors that the CPU quota of this process's control groups pays for, at least 1;
    None where nothing limits it. Threads beyond that are stopped for most of every period.
    """
    limits: list[float] = []
    with suppress(OSError):
        for line in membership.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:  # version 2
                limits += quotas(mounted, path, read_version_2)
            elif "cpu" in controllers.split(","):
                limits += quotas(mounted / "cpu", path, read_version_1)
    return max(1, int(min(limits))) if limits else None


def quotas(mounted: Path, path: str, read: Callable[[Path], float | None]) -> Iterator[float]:
    """Of a group and of those it lies in. In a container the mounted one is its own, whatever
    name the group has outside."""
    own = mounted / path.lstrip("/")
    for folder in [own, *own.parents]:
        with suppress(OSError, ValueError):
            limit = read(folder)
            if limit is not None:
                yield limit
        if folder == mounted:
            return


def read_version_2(folder: Path) -> float | None:
    quota, period = (folder / "cpu.max").read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def read_version_1(folder: Path) -> float | None:
    quota = int((folder / "cpu.cfs_quota_us").read_text())
    return None if quota <= 0 else quota / int((folder / "cpu.cfs_period_us").read_text())
