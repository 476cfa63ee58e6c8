"""What nobody opens any more leaves the cache; what is in use, or was opened lately, stays."""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from atlasd import expiry, sweeping
from atlasd.engine.protocol import DropRepository
from atlasd.expiry import DAY_S, KEPT_DAYS, count_day, mark_held, mark_opened, sweep
from atlasd.paths import learned_folder_name
from atlasd.workspace.tokencache import cache_file
from tests.served import eventually, served
from tests.unit.store.rows import file_row

OLD, NEW = KEPT_DAYS + 1, KEPT_DAYS - 1
FIRST_SWEEP_S = 1.0
LEARNED = f"drafting/fp/adapter/{learned_folder_name('/a')}"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """One that was used every day."""
    folder = tmp_path / "cache"
    folder.mkdir()
    use(folder, range(KEPT_DAYS))
    return folder


def use(cache: Path, days_ago: Iterable[int]) -> None:
    for days in sorted(days_ago, reverse=True):
        count_day(cache, time.time() - days * DAY_S)


def put(cache: Path, name: str, days: float, bytes: int = 10) -> Path:
    """A file that was opened so many days ago, as were the folders around it."""
    file = cache / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"x" * bytes)
    opened = time.time() - days * DAY_S
    for path in (file, *file.parents):
        if path == cache:
            break
        os.utime(path, (opened, opened))
    return file


def left(cache: Path) -> set[str]:
    files = {str(one.relative_to(cache)) for one in cache.rglob("*") if one.is_file()}
    return files - {"days"}


def test_what_was_not_opened_for_long_goes_with_its_folders(cache: Path) -> None:
    layer = "weights/gpu-int8-a/layer-0000.safetensors"
    learned = (f"{LEARNED}/live.npz", "drafting/fp/positions.index")
    for name in ("weights/packed-a.bin", layer, "tokens/a.tokens", *learned):
        put(cache, name, OLD)
        put(cache, name.replace("fp", "used").replace("-a", "-b").replace("/a.", "/b."), NEW)
    gone = sweep(cache)
    assert len(gone) == 5
    assert sum(one.bytes for one in gone) >= 50
    assert left(cache) == {
        "weights/packed-b.bin", "weights/gpu-int8-b/layer-0000.safetensors", "tokens/b.tokens",
        LEARNED.replace("fp", "used") + "/live.npz", "drafting/used/positions.index",
    }  # fmt: skip
    assert not (cache / "drafting" / "fp").exists()
    assert sweep(cache) == []


def test_a_long_leave_costs_nothing(cache: Path) -> None:
    (cache / "days").unlink()
    use(cache, [0, 400, *range(402, 402 + KEPT_DAYS)])
    put(cache, "weights/packed-a.bin", 403)
    put(cache, "weights/packed-b.bin", 402 + KEPT_DAYS)
    sweep(cache)
    assert left(cache) == {"weights/packed-a.bin"}


def test_a_clock_that_jumps_removes_nothing(cache: Path) -> None:
    put(cache, "weights/packed-a.bin", 1)
    years_ahead = time.time() + 5000 * DAY_S
    count_day(cache, years_ahead)
    assert sweep(cache, years_ahead) == []


@pytest.mark.parametrize("held", [None, "", "yesterday\n", "\xff"])
def test_days_that_cannot_be_read_are_counted_anew(cache: Path, held: str | None) -> None:
    (cache / "days").unlink()
    if held is not None:
        (cache / "days").write_text(held)
    put(cache, "weights/packed-a.bin", 9000)
    assert sweep(cache) == []
    use(cache, range(3))
    count_day(cache)
    assert len((cache / "days").read_text().split()) == 3


def test_one_file_opened_lately_keeps_what_belongs_to_it(cache: Path) -> None:
    put(cache, f"{LEARNED}/live.npz", OLD)
    put(cache, f"{LEARNED}/recent.npz", NEW)
    put(cache, "drafting/fp/positions.index", NEW)
    assert sweep(cache) == []


def test_beyond_its_size_what_was_not_opened_for_longest_goes_first(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for days in (1, 5, 10, 20):
        put(cache, f"weights/packed-{days}.bin", days, bytes=1000)
    monkeypatch.setattr(expiry, "MOST_BYTES", 2500)
    assert [one.path.name for one in sweep(cache)] == ["packed-20.bin", "packed-10.bin"]
    monkeypatch.setattr(expiry, "MOST_BYTES", 0)
    sweep(cache)
    assert left(cache) == {"weights/packed-1.bin"}, "what was opened lately stays"


def test_a_quarter_of_a_small_disk_is_enough(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(cache)
    assert expiry.most_bytes(cache) == min(64 << 30, disk.f_frsize * disk.f_blocks // 4)


def test_half_written_weights_of_a_killed_process_go_soon(cache: Path) -> None:
    put(cache, "weights/.packed-a.bin.123", 3)
    put(cache, "weights/.packed-b.bin.124", 0.1)
    sweep(cache)
    assert left(cache) == {"weights/.packed-b.bin.124"}


@pytest.fixture
def holder() -> Iterator[Callable[[str, Path], int]]:
    running = []

    def hold(how: str, file: Path) -> int:
        script = f"file = open({str(file)!r}, 'rb'); {how}; print(flush=True); input()"
        one = subprocess.Popen(
            [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert one.stdout is not None
        one.stdout.readline()
        running.append(one)
        return one.pid

    yield hold
    for one in running:
        one.communicate(b"\n")


@pytest.mark.parametrize(
    "how", ["pass", "import mmap; held = mmap.mmap(file.fileno(), 0, prot=1); file.close()"]
)
def test_what_a_process_holds_stays(
    cache: Path, holder: Callable[[str, Path], int], how: str
) -> None:
    assert mmap.PROT_READ == 1
    file = put(cache, "weights/packed-a.bin", OLD)
    put(cache, "weights/packed-b.bin", OLD)
    pid = holder(how, file)
    assert [one.path.name for one in sweep(cache)] == ["packed-b.bin"]
    mark_held(cache, pid)
    assert file.stat().st_mtime > time.time() - 60, "it counts as opened now"


def test_the_repositories_that_are_open_are_kept(cache: Path) -> None:
    kept = put(cache, f"{LEARNED}/live.npz", OLD)
    put(cache, f"drafting/fp/adapter/{learned_folder_name('/b')}/live.npz", OLD)
    put(cache, "drafting/fp/positions.index", OLD)
    mark_opened(cache, "fp", ["/a", "/never-learned-from"])
    sweep(cache)
    assert left(cache) == {str(kept.relative_to(cache)), "drafting/fp/positions.index"}


def test_links_are_not_followed(cache: Path, tmp_path: Path) -> None:
    mine = put(tmp_path / "elsewhere", "mine", OLD)
    (cache / "weights").mkdir(parents=True)
    (cache / "weights" / "link").symlink_to(mine.parent)
    long_ago = time.time() - OLD * DAY_S
    os.utime(cache / "weights" / "link", (long_ago, long_ago), follow_symlinks=False)
    assert len(sweep(cache)) == 1
    assert mine.exists()


async def test_the_daemon_sweeps_when_nobody_asks_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atlasd.sweeping")
    monkeypatch.setattr(sweeping, "FIRST_SWEEP_S", FIRST_SWEEP_S)
    monkeypatch.setattr(sweeping, "IDLE_CHECK_S", 0.05)
    repository = tmp_path / "repository"
    repository.mkdir()
    async with served(tmp_path / "home") as house:
        cache, fingerprint = house.daemon.paths.cache, house.tokenizer.fingerprint
        async with house.daemon.use():
            use(cache, range(1, KEPT_DAYS))
            house.says("x")
            async with house.unix() as client:
                asked = await client.post("/v1/completions", json={"prompt": "x"})
                assert asked.status == 200
            store = house.daemon.store
            assert store is not None
            put(cache, f"tokens/{cache_file(cache, Path('/used'), 'other').name}", NEW)
            for root in ("/left", "/used", str(repository)):
                await store.put_files(root, [file_row("a.py")])
                put(cache, f"tokens/{cache_file(cache, Path(root), 'k').name}", OLD)
            await house.daemon.open_workspaces([(repository, True)], [])
            name = f"drafting/{fingerprint}/adapter/{learned_folder_name(str(repository))}/live.npz"
            put(cache, "weights/packed-a.bin", OLD)
            opened = put(cache, name, OLD)
            await asyncio.sleep(2 * FIRST_SWEEP_S)
            assert (cache / "weights/packed-a.bin").exists(), "somebody was being served"
        await eventually(lambda: "from the cache" in caplog.text)
        assert not (cache / "weights/packed-a.bin").exists()
        assert opened.exists()
        await eventually(lambda: DropRepository("/left") in house.engine.sent)
        dropped = [one for one in house.engine.sent if isinstance(one, DropRepository)]
        assert dropped == [DropRepository("/left")], "what is in use stays"
    assert caplog.text.count("from the cache") == 1
    assert "weights/packed-a.bin" in caplog.text
