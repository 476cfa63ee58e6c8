"""What was learned is kept: in files, over restarts, and not beyond a purge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from atlasd.learn.passages import of_stream
from atlasd.learn.replay import RECENT
from atlasd.learn.repositories import REPOSITORIES, SAVE_EVERY_S
from atlasd.learn.versions import Key
from tests.unit.full_disk import at_most
from tests.unit.learners import (
    SUCCESSOR,
    learner,
    longest_unit,
    right,
    serve,
    texts,
    work,
)


def test_what_fills_memory_is_written_in_short_units(tmp_path: Path) -> None:
    one = learner(tmp_path)
    known = one.repositories.of("/r")
    passages = [passage for text in texts(SUCCESSOR, 50) for passage in of_stream(text, 8)]
    for _ in range(24):
        for passage in passages:
            known.replay.take(replace(passage))
    assert len(known.replay.recent) == RECENT
    known.unsaved = True
    one.repositories._saved_at -= SAVE_EVERY_S + 1
    assert longest_unit(one, 20) < 0.020
    assert not known.unsaved
    again = learner(tmp_path)
    work(again, 5)
    assert again.repositories.of("/r").replay.rows == known.replay.rows


def test_what_is_let_go_of_is_written_when_nobody_waits_and_comes_back(tmp_path: Path) -> None:
    one = learner(tmp_path)
    for number in range(REPOSITORIES):
        serve(one, texts(SUCCESSOR, 4), f"/{number}")
    work(one)
    rows = one.repositories.of("/0").replay.rows
    assert rows > 0
    for number in range(1, REPOSITORIES + 1):
        serve(one, texts(SUCCESSOR, 1), f"/{number}")
    assert one.repositories.get("/0") is None
    assert not any(tmp_path.iterdir())  # the stream's end did not wait for that
    # Asked for again before it was written, it is what it was; what it drives out is written.
    assert one.repositories.of("/0").replay.rows == rows
    work(one)
    assert len(list(tmp_path.iterdir())) == 1
    one.repositories.of("/1")
    work(one)
    assert len(list(tmp_path.iterdir())) == 2
    assert one.repositories.of("/1").replay.rows > 0


def test_what_was_learned_survives_a_restart(taught: Path) -> None:
    one = learner(taught)
    work(one)
    one.save()
    known = one.repositories.of("/r")
    share = right(one, SUCCESSOR)
    again = learner(taught)
    # warm from the first request, before any idle time
    assert right(again, SUCCESSOR) == pytest.approx(share, abs=0.05)
    work(again)
    restored = again.repositories.of("/r")
    assert restored.replay.rows == known.replay.rows
    assert len(restored.replay.unseen) == len(known.replay.unseen)
    assert restored.versions.latest == known.versions.latest
    assert restored.trainer is not None
    for path in taught.rglob("*"):
        assert path.is_dir() or path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("key", "keeps_weights", "keeps_rows"),
    [
        (Key("tokens", "target", "table"), True, True),
        (Key("tokens", "target", "another drafter"), False, True),
        (Key("tokens", "another target", "table"), False, False),
        (Key("other tokens", "target", "table"), False, False),
    ],
)
def test_another_model_makes_worthless_exactly_what_it_must(
    taught: Path, key: Key, keeps_weights: bool, keeps_rows: bool
) -> None:
    assert learner(taught).promotion.in_use("/r") is not None
    again = learner(taught, key)
    assert (again.promotion.in_use("/r") is not None) == keeps_weights
    again.idle(50.0)
    assert (again.repositories.of("/r").replay.rows > 0) == keeps_rows


def test_damaged_files_cost_what_they_held_and_nothing_else(taught: Path) -> None:
    for name in ("live.npz", "recent.npz", "candidate.npz"):
        for path in taught.rglob(name):
            path.write_bytes(path.read_bytes()[:100])
    again = learner(taught)
    again.idle(50.0)
    for path in taught.rglob("header"):
        path.write_bytes(b"\x93")
    learner(taught).idle(50.0)


def test_a_purge_leaves_no_file_and_no_memory(tmp_path: Path) -> None:
    one = learner(tmp_path)
    for repository in ("/r", "/other", None):
        serve(one, texts(SUCCESSOR, 30), repository)
        work(one)
    one.save()
    assert len(list(tmp_path.iterdir())) == 3
    one.idle(1.0)
    one.forget("/r")
    assert len(list(tmp_path.iterdir())) == 2
    assert one.repositories.get("/r") is None
    one.save()
    one.forget(None)
    assert not tmp_path.exists()
    assert one.nbytes == 0
    one.idle(1.0)
    one.save()
    assert not tmp_path.exists()


def test_a_disk_without_room_costs_what_was_learned_since_and_nothing_else(
    taught: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine ended with it, and again each time it had something to write."""
    one = learner(taught)
    work(one)
    rows = one.repositories.of("/r").replay.rows
    serve(one, texts(SUCCESSOR, 20), "/r")
    before = {path: path.read_bytes() for path in taught.rglob("*") if path.is_file()}
    with at_most(100):
        one.save()
        one.repositories._saved_at -= SAVE_EVERY_S + 1
        work(one)
    assert {path: path.read_bytes() for path in taught.rglob("*") if path.is_file()} == before
    assert "could not be written" in caplog.text
    one.save()
    again = learner(taught)
    work(again)
    assert again.repositories.of("/r").replay.rows > rows


def test_versions_reach_the_store_and_come_back(taught: Path, tmp_path: Path) -> None:
    one = learner(taught)
    ((kind, repository, payload),) = one.learned()
    assert (kind, repository) == ("adapter", "/r")
    fresh = learner(tmp_path / "empty")
    fresh.restore("/r", payload)
    restored, known = (each.repositories.of("/r").versions for each in (fresh, one))
    assert restored.latest == known.latest
    assert list(restored.history) == list(known.history)
    fresh.restore("/r", b"damaged")
