"""Containers' limits: threads that they do not pay for are not started."""

from __future__ import annotations

from pathlib import Path

import pytest
from atlasd_kernels.cpu import decoder
from atlasd_kernels.cpu.quota import granted_processors


def group(folder: Path, quota: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "cpu.max").write_text(f"{quota} 100000\n")


def membership(folder: Path, text: str) -> Path:
    (folder / "membership").write_text(text)
    return folder / "membership"


@pytest.mark.parametrize(
    ("quotas", "granted"),
    [
        ({"": "max"}, None),
        ({"a/b": "400000"}, 4),
        ({"a": "200000", "a/b": "400000"}, 2),
        ({"": "150000", "a/b": "max"}, 1),
        ({"a/b": "50000"}, 1),
    ],
)
def test_the_tightest_group_counts(
    quotas: dict[str, str], granted: int | None, tmp_path: Path
) -> None:
    for name, quota in quotas.items():
        group(tmp_path / name, quota)
    assert granted_processors(tmp_path, membership(tmp_path, "0::/a/b\n")) == granted


def test_in_a_container_the_mounted_group_is_its_own(tmp_path: Path) -> None:
    group(tmp_path, "300000")
    named = membership(tmp_path, "0::/system.slice/docker-0123.scope\n")
    assert granted_processors(tmp_path, named) == 3


@pytest.mark.parametrize(("quota", "granted"), [(-1, None), (250_000, 2)])
def test_the_first_version_of_groups(quota: int, granted: int | None, tmp_path: Path) -> None:
    folder = tmp_path / "cpu" / "docker"
    folder.mkdir(parents=True)
    (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (folder / "cpu.cfs_period_us").write_text("100000\n")
    lines = "9:name=systemd:/\n4:cpu,cpuacct:/docker\n0::/\n"
    assert granted_processors(tmp_path, membership(tmp_path, lines)) == granted


def test_without_control_groups_nothing_limits(tmp_path: Path) -> None:
    assert granted_processors(tmp_path, tmp_path / "missing") is None


def test_measured_threads_stay_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoder, "granted_processors", lambda: 1)
    decoder.measure_threads.cache_clear()
    try:
        assert decoder.measure_threads() == 1
    finally:
        decoder.measure_threads.cache_clear()
