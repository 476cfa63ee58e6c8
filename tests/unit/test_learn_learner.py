"""Learning in idle time: what is promoted and rolled back, and how it is cut up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atlasd.learn.repository import ENDED_ROWS
from tests.unit.learners import (
    SUCCESSOR,
    learner,
    longest_unit,
    right,
    serve,
    texts,
    work,
)
from tests.unit.learning import VOCAB, walk


def test_traffic_with_idle_time_teaches_the_drafter_and_the_gate_lets_it_through(
    taught: Path,
) -> None:
    assert right(learner(), SUCCESSOR) < 0.2
    one = learner(taught)
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
    one, alike = learner(), learner()
    known, other = one.repositories.of("/r"), alike.repositories.of("/r")
    fitting = ENDED_ROWS // 64
    serve(one, texts(SUCCESSOR, fitting + 3))
    serve(alike, texts(SUCCESSOR, fitting, 3))
    assert len(known.ended) == fitting  # the first three had to go
    assert known.ended_rows == ENDED_ROWS
    assert not known.fresh
    assert not known.replay.rows
    for learned in (one, alike):
        work(learned)
    assert not known.ended
    assert not known.ended_rows
    assert not known.fresh
    first = [passages[0].tokens.tolist() for passages in (known.replay.recent, other.replay.recent)]
    assert first[0] == first[1]
    assert known.replay.rows == other.replay.rows > 0


def test_nothing_is_kept_of_workspaces_that_are_not_trusted() -> None:
    one = learner()
    serve(one, texts(SUCCESSOR, 60), learn=False)
    assert not one.idle(5.0)
    assert list(one.repositories) == []


def test_a_version_that_stops_paying_is_rolled_back(taught: Path) -> None:
    one = learner(taught)
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


def test_a_unit_of_work_is_short() -> None:
    one = learner()
    serve(one, texts(SUCCESSOR, 60))
    assert longest_unit(one, 1500) < 0.020
