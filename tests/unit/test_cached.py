"""The cache folder is shown as it is, and emptied of a repository or of everything."""

from __future__ import annotations

from pathlib import Path

import pytest

from atlasd.cached import purge, summary
from atlasd.paths import learned_folder_name
from tests.served import served


def filled(cache: Path) -> Path:
    for name, text in (
        ("weights/abc.packed", "x" * 100),
        ("tokens/one.tokens", "y" * 10),
        ("drafting/fp/positions.index", "z"),
        (f"drafting/fp/adapter/{learned_folder_name('/a')}/live.npz", "a"),
        (f"drafting/fp/adapter/{learned_folder_name('/b')}/live.npz", "b"),
        ("loose", "c"),
    ):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_text(text)
    return cache


def test_every_folder_is_shown_with_its_bytes(tmp_path: Path) -> None:
    found = {one["name"]: one for one in summary(filled(tmp_path))}
    assert (found["weights"]["bytes"], found["weights"]["files"]) == (100, 1)
    assert found["drafting"]["files"] == 3
    assert found["drafting"]["path"] == str(tmp_path / "drafting")
    assert summary(tmp_path / "missing") == []


@pytest.mark.parametrize(("repository", "gone"), [("/a", 2), ("/c", 1), (None, 6)])
def test_what_belongs_to_a_repository_goes(
    tmp_path: Path, repository: str | None, gone: int
) -> None:
    cache = filled(tmp_path)
    assert purge(cache, repository) == gone
    assert (cache / "weights").exists() is (repository is not None)
    other = cache / "drafting/fp/adapter" / learned_folder_name("/b")
    assert other.exists() is (repository is not None)
    if repository is None:
        assert list(cache.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine").write_text("x")
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "link").symlink_to(outside)
    purge(cache, None)
    assert (outside / "mine").exists()
    assert not (cache / "link").exists()


async def test_the_daemon_shows_and_purges_it(tmp_path: Path) -> None:
    async with served(tmp_path) as house, house.unix() as client:
        filled(house.daemon.paths.cache)
        async with client.get("/atlasd/v1/data") as answer:
            told = await answer.json()
        assert {"weights", "drafting"} <= {one["name"] for one in told["cache"]}
        assert told["database"].endswith("atlasd.db")
        async with client.post("/atlasd/v1/data/purge", json={"repository": None}) as answer:
            # The tokens went before, with the workspace's own.
            assert (await answer.json())["removed"]["cached files"] == 5
        assert list(house.daemon.paths.cache.iterdir()) == []
