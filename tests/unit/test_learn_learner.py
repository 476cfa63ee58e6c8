"""Learning in idle time: what is promoted, rolled back, kept, forgotten, and how it is cut up."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import thread_time

import numpy as np
import pytest

from atlasd.draft.drafter import StreamView
from atlasd.draft.lookahead import Lookahead, Noise
from atlasd.draft.neural import Neural
from atlasd.learn.files import AdapterFiles
from atlasd.learn.learner import Learner
from atlasd.learn.passages import TOP, of_stream
from atlasd.learn.replay import RECENT
from atlasd.learn.repositories import REPOSITORIES, SAVE_EVERY_S
from atlasd.learn.repository import AGAIN, ENDED
from atlasd.learn.versions import Key
from tests.unit.learning import VOCAB, FlatCosts, Table, walk

GREEDY = Noise(0.0, 0, 0, 0)
KEY = Key("tokens", "target", "table")


def learner(
    folder: Path | None = None,
    key: Key = KEY,
    head: np.ndarray | None = None,
    target: Reading | None = None,
) -> Learner:
    table = Table(head)
    neural = Neural(table)
    neural.token_ms = 0.05
    files = AdapterFiles(folder, key) if folder is not None else None
    return Learner(table, neural, FlatCosts(), files=files, target=target)


def serve(one: Learner, texts: list[list[int]], repository: str | None = "/r", **more) -> None:
    for text in texts:
        stream = StreamView(1, text, 8, repository, **more)
        one.begin(stream)
        one.end(stream)


def work(one: Learner, most: int = 4000) -> int:
    """Idle slices until nothing is left; how many."""
    slices = 1
    while one.idle(5.0) and slices < most:
        slices += 1
    return slices


def texts(successor: np.ndarray, count: int, first: int = 0) -> list[list[int]]:
    return [walk(successor, 72, seed) for seed in range(first, first + count)]


def right(
    one: Learner,
    successor: np.ndarray,
    repository: str | None = "/r",
    tokens: Sequence[int] = range(VOCAB),
) -> float:
    """Share of ``tokens`` whose successor the drafter in use knows."""
    corrected = one.promotion.in_use(repository)
    model = one.model
    assert isinstance(model, Table)
    found = 0
    for token in tokens:
        if corrected is None:
            said = model.says(token)
        else:
            said = corrected.chain(Lookahead([token], 0, 0, 0, 1, 0.0, GREEDY))[0][0]
        found += said == successor[token]
    return found / len(tokens)


SUCCESSOR = np.random.default_rng(5).permutation(VOCAB)
OTHER = np.random.default_rng(6).permutation(VOCAB)


@pytest.fixture(scope="module")
def taught(tmp_path_factory) -> Path:
    """The folder of a learner that was taught ``SUCCESSOR``."""
    folder = tmp_path_factory.mktemp("taught") / "adapter"
    one = learner(folder)
    for first in range(0, 100, 20):
        serve(one, texts(SUCCESSOR, 20, first))
        work(one)
    one.save()
    return folder


@pytest.fixture
def folder(taught: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(taught, tmp_path / "adapter"))


def test_traffic_with_idle_time_teaches_the_drafter_and_the_gate_lets_it_through(
    folder: Path,
) -> None:
    assert right(learner(), SUCCESSOR) < 0.2
    one = learner(folder)
    assert right(one, SUCCESSOR) > 0.7
    assert one.repositories.of("/r").versions.history[0].what == "promoted"
    # nothing was learned of another repository
    assert one.promotion.in_use("/other") is None


def test_learning_stops_until_something_new_comes() -> None:
    one = learner()
    serve(one, texts(SUCCESSOR, 60))
    work(one)
    steps = one.repositories.of("/r").steps
    assert steps > 100
    assert not one.idle(5.0)
    assert one.repositories.of("/r").steps == steps
    serve(one, texts(SUCCESSOR, 1, 500))
    work(one)
    assert steps < one.repositories.of("/r").steps <= steps + 12


def test_what_a_stream_said_is_looked_at_when_nobody_waits() -> None:
    one = learner()
    known = one.repositories.of("/r")
    serve(one, texts(SUCCESSOR, ENDED))
    assert not known.fresh
    assert not known.replay.rows
    serve(one, texts(SUCCESSOR, 3, ENDED))  # more than may wait
    assert len(known.fresh) == 3
    work(one)
    assert not known.ended
    assert not known.fresh
    whole = learner()
    serve(whole, texts(SUCCESSOR, ENDED + 3))
    work(whole)
    assert known.replay.rows == whole.repositories.of("/r").replay.rows > 0


def test_nothing_is_kept_of_workspaces_that_are_not_trusted() -> None:
    one = learner()
    serve(one, texts(SUCCESSOR, 60), learn=False)
    assert not one.idle(5.0)
    assert list(one.repositories) == []


def test_a_version_that_stops_paying_is_rolled_back(folder: Path) -> None:
    one = learner(folder)
    work(one)
    versions = one.repositories.of("/r").versions
    assert versions.live is not None
    # From now on the target says what the static drafter has always said.
    says = np.array([one.model.says(token) for token in range(VOCAB)])
    serve(one, texts(says, 40, 1000))
    for _ in range(400):
        one.idle(0.0)
        if versions.history[-1].what == "rolled back":
            break
    assert versions.history[-1].what == "rolled back"
    work(one)
    # Those texts run round in a few tokens: what matters is what is right there.
    assert right(one, says, tokens=walk(says, 200, 1000, 0.0)[50:]) > 0.6
    # And what was rolled back is in use again as soon as the text is of its kind again.
    serve(one, texts(SUCCESSOR, 40, 2000))
    work(one)
    assert right(one, SUCCESSOR) > 0.6


@pytest.mark.parametrize("head_size", [None, 30])
def test_a_head_takes_in_the_tokens_a_repository_uses(head_size: int | None) -> None:
    head = None if head_size is None else np.arange(head_size, dtype=np.int32)
    one = learner(head=head)
    used = np.arange(20, VOCAB)  # tokens 0..19 never come; 30.. are outside the small head
    successor = np.arange(VOCAB)
    successor[used] = np.roll(used, 1)
    shifted = [[20 + token % 28 for token in walk(np.arange(VOCAB), 72, s, 0.9)] for s in range(70)]
    serve(one, shifted)
    work(one)
    trained = one.repositories.of("/r").trainer
    assert trained is not None
    assert len(trained.adapter.head) == (28 if head is None else 30)
    assert set(used.tolist()) <= set(trained.adapter.head.tolist())


def longest_unit(one: Learner, most: int) -> float:
    """Seconds of processor time, over all units until nothing is left."""
    longest = 0.0
    for _ in range(most):
        began = thread_time()
        more = one.idle(0.0)  # exactly one unit
        longest = max(longest, thread_time() - began)
        if not more:
            break
    return longest


def test_a_unit_of_work_is_short() -> None:
    one = learner()
    serve(one, texts(SUCCESSOR, 60))
    assert longest_unit(one, 1500) < 0.020


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


def test_what_was_learned_survives_a_restart(folder: Path) -> None:
    one = learner(folder)
    work(one)
    one.save()
    known = one.repositories.of("/r")
    share = right(one, SUCCESSOR)
    again = learner(folder)
    # warm from the first request, before any idle time
    assert right(again, SUCCESSOR) == pytest.approx(share, abs=0.05)
    work(again)
    restored = again.repositories.of("/r")
    assert restored.replay.rows == known.replay.rows
    assert len(restored.replay.unseen) == len(known.replay.unseen)
    assert restored.versions.latest == known.versions.latest
    assert restored.trainer is not None
    for path in folder.rglob("*"):
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
    folder: Path, key: Key, keeps_weights: bool, keeps_rows: bool
) -> None:
    assert learner(folder).promotion.in_use("/r") is not None
    again = learner(folder, key)
    assert (again.promotion.in_use("/r") is not None) == keeps_weights
    again.idle(50.0)
    assert (again.repositories.of("/r").replay.rows > 0) == keeps_rows


def test_damaged_files_cost_what_they_held_and_nothing_else(folder: Path) -> None:
    for name in ("live.npz", "recent.npz", "candidate.npz"):
        for path in folder.rglob(name):
            path.write_bytes(path.read_bytes()[:100])
    again = learner(folder)
    again.idle(50.0)
    for path in folder.rglob("header"):
        path.write_bytes(b"\x93")
    learner(folder).idle(50.0)


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


def test_versions_reach_the_store_and_come_back(folder: Path, tmp_path: Path) -> None:
    one = learner(folder)
    ((kind, repository, payload),) = one.learned()
    assert (kind, repository) == ("adapter", "/r")
    fresh = learner(tmp_path / "empty")
    fresh.restore("/r", payload)
    restored, known = (each.repositories.of("/r").versions for each in (fresh, one))
    assert restored.latest == known.latest
    assert list(restored.history) == list(known.history)
    fresh.restore("/r", b"damaged")


class Reading:
    """A target that says what ``successor`` says, unless it is interrupted."""

    rows = 16

    def __init__(self, successor: np.ndarray) -> None:
        self.successor = successor
        self.interrupt_at = -1
        self.calls = self.read_tokens = 0

    def begin(self) -> bool:
        return True

    def read(self, tokens: np.ndarray, position: int) -> tuple[np.ndarray, np.ndarray, None] | None:
        self.calls += 1
        if self.calls == self.interrupt_at:
            return None
        self.read_tokens += len(tokens)
        top = (self.successor[tokens][:, None] + np.arange(TOP)) % VOCAB
        logprobs = np.log(np.array([0.9, 0.05, 0.03, 0.01], np.float32))
        return top.astype(np.int32), np.tile(logprobs, (len(tokens), 1)), None


def test_a_repository_is_known_before_its_first_request() -> None:
    target = Reading(SUCCESSOR)
    one = learner(target=target)
    target.interrupt_at = 3
    for number in range(12):
        one.wish("/r", f"{number}.py", "file", np.array(walk(OTHER, 1500, number, 0.5), np.int32))
    work(one)
    assert right(one, SUCCESSOR) > 0.7
    read = target.read_tokens
    # the same texts again are not read again; a changed end is
    one.wish("/r", "3.py", "file", np.array(walk(OTHER, 1500, 3, 0.5), np.int32))
    work(one)
    assert target.read_tokens == read
    one.wish("/r", "3.py", "file", np.array(walk(OTHER, 1500, 3, 0.5)[:1400] + [1] * 90, np.int32))
    work(one)
    assert 90 <= target.read_tokens - read <= 600


def test_a_changed_target_is_followed(folder: Path) -> None:
    one = learner(folder)
    work(one)
    assert one.promotion.in_use("/r") is not None
    one.target_changed()
    changed = SUCCESSOR.copy()
    changed[::3] = np.roll(SUCCESSOR[::3], 1)
    before = right(one, changed)
    for first in range(0, 160, 40):
        serve(one, texts(changed, 40, first))
        work(one)
    assert right(one, changed) > before + 0.1


def test_a_changed_target_is_asked_again_about_what_it_said_before() -> None:
    target = Reading(SUCCESSOR)
    one = learner(target=target)
    for first in range(0, 120, 40):
        serve(one, texts(SUCCESSOR, 40, first))
        work(one)
    assert right(one, SUCCESSOR) > 0.6
    assert target.read_tokens == 0
    target.successor = OTHER
    target.interrupt_at = 5
    one.target_changed()
    work(one)  # nobody has asked for anything since
    assert right(one, OTHER) > 0.6
    known = one.repositories.of("/r")
    assert not known.again
    assert len(known.replay.unseen) == AGAIN // 4
    assert all((p.top[:, 0] == OTHER[p.read_by[0]]).all() for p in known.replay.unseen)
