"""What the target is asked to read in idle time, and to read again once it has changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from atlasd.learn.repository import AGAIN
from tests.unit.learners import (
    OTHER,
    SUCCESSOR,
    Reading,
    learner,
    right,
    serve,
    texts,
    work,
)
from tests.unit.learning import walk


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


def test_a_changed_target_is_followed(taught: Path) -> None:
    one = learner(taught)
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
    for first in range(0, 240, 40):
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


def test_of_what_was_drawn_at_random_the_target_is_asked_what_it_holds_likely() -> None:
    target = Reading(SUCCESSOR)
    one = learner(target=target)
    known = one.repositories.of("/r")
    target.interrupt_at = 5
    serve(one, texts(OTHER, 40), temperature=0.8)
    work(one)
    assert not known.again
    held = [*known.replay.recent, *known.replay.unseen]
    assert len(held) == 40
    assert all((p.top[:, 0] == SUCCESSOR[p.read_by[0]]).all() for p in held)
    read = target.read_tokens
    serve(one, texts(SUCCESSOR, 4))
    work(one)
    assert target.read_tokens == read


def test_what_was_drawn_is_learned_from_as_it_is_where_the_target_cannot_be_asked() -> None:
    one = learner()
    serve(one, texts(SUCCESSOR, 40), temperature=0.8)
    work(one)
    assert one.repositories.of("/r").replay.rows > 0
