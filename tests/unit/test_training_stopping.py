"""Rows that go round: where they should have ended, and what a step teaches."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.test_training_model import SHAPE, shaken
from training import circles, repeats
from training.evaluate import is_loop
from training.model import Decoder
from training.stopping import FROZEN, Readers, backward
from training.tokenizer import end_id

END = end_id(SHAPE.vocabulary)


@pytest.fixture
def model() -> Decoder:
    return shaken(Decoder(SHAPE)).requires_grad_(False)


def student_of(model: Decoder) -> Decoder:
    student = copy.deepcopy(model).requires_grad_(True)
    for fixed in (student.embed, *student.layers[:FROZEN]):
        fixed.requires_grad_(False)
    return student


def test_a_run_counts_tokens_that_equal_those_a_period_before() -> None:
    row = np.array([[7, 1, 2, 1, 2, 1, 9, 1, 9]])
    assert repeats.run_lengths(row, 2).tolist() == [[0, 0, 0, 1, 2, 3, 0, 1, 2]]
    assert repeats.run_lengths(row, 2, start=4).tolist() == [[0, 0, 0, 0, 1, 2, 0, 1, 2]]
    assert repeats.longest_run(row).tolist() == [[0, 0, 0, 1, 2, 3, 0, 1, 2]]


@given(st.integers(1, 50), st.integers(0, 40), st.integers(0, 2**31))
def test_a_row_that_ends_where_it_should_is_no_loop(period: int, before: int, seed: int) -> None:
    """From the end of the second copy until it is a loop, every place is one to end at."""
    rng = np.random.default_rng(seed)
    head, circle = rng.permutation(1000)[: before + 5], 1000 + rng.permutation(100)[:period]
    row = np.concatenate([head, np.resize(circle, 160)])
    twice, loop = (int(place[0]) for place in repeats.turns(row[None], len(head)))
    assert twice == len(head) + period + max(period, repeats.LEAST) - 1
    assert not is_loop(row[len(head) : loop].tolist())
    assert is_loop(row[len(head) : loop + 1].tolist())
    assert twice < loop


def test_what_is_said_twice_and_then_left_need_not_end() -> None:
    line = list(range(12))
    row = torch.tensor([[*line, *line, *range(20, 60)]])
    taught = circles.lesson(row, 64)
    assert not taught.stop.any()
    assert taught.held.all()
    assert taught.levels[0, 23].tolist() == [True, True, True, True, False, False]


def test_rows_of_the_data_are_never_to_end() -> None:
    row = torch.tensor([[1, 2, 3] * 40])
    assert circles.lesson(row, 120).stop.any()
    assert not circles.lesson(row, 0).stop.any()


def test_continuations_are_greedy_but_for_the_end(model: Decoder) -> None:
    made = circles.continued(model, [[1, 2, 3], [4, 5, 6]], END)
    assert made.shape == (2, 3 + circles.WRITTEN)
    assert not (made == END).any()
    logits = model.logits(made[:, :-1])
    logits[..., END] = -torch.inf
    assert torch.equal(logits[:, 2:].argmax(dim=-1), made[:, 3:])


def test_circles_are_made_of_what_stood_before_them() -> None:
    rows = torch.arange(60)[None].repeat(20, 1)
    rows = torch.cat((rows, torch.zeros(20, circles.WRITTEN, dtype=torch.long)), dim=1)
    made = circles.repeated(rows, np.random.default_rng(1))
    assert torch.equal(made[:, :60], rows[:, :60])
    places = repeats.turns(made.numpy(), 60)
    assert (places.loop < made.shape[1]).all()


def test_the_unchanged_model_is_pulled_nowhere_by_what_it_is_held_to(model: Decoder) -> None:
    student = student_of(model)
    readers = Readers(SHAPE.hidden, SHAPE.layers - FROZEN)
    text = circles.lesson(torch.randint(0, 80, (2, 50)), 0)
    sums = backward(student, readers, model, text, (1.0, 0.0))
    assert sums.divergence == pytest.approx(0, abs=1e-4)
    assert sums.held == 100
    for parameter in student.parameters():
        assert parameter.grad is None or parameter.grad.abs().max() < 1e-6


def test_steps_teach_to_end_in_a_circle_and_leave_the_rest(model: Decoder) -> None:
    student = student_of(model)
    readers = Readers(SHAPE.hidden, SHAPE.layers - FROZEN)
    rows = torch.randint(0, 80, (4, 40 + circles.WRITTEN))
    taught = circles.lesson(circles.repeated(rows, np.random.default_rng(2)), circles.WRITTEN)
    free = [p for p in (*student.parameters(), *readers.parameters()) if p.requires_grad]
    optim = torch.optim.Adam(free, lr=0.003)
    losses = []
    for _ in range(40):
        optim.zero_grad()
        losses.append(backward(student, readers, model, taught, (1.0, 0.1)).missed)
        optim.step()
    assert losses[-1] < 0.5 * losses[0]
    assert torch.equal(student.embed.weight, model.embed.weight)
    for ours, theirs in zip(
        student.layers[0].parameters(), model.layers[0].parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
