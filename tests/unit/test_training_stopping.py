"""Rows that go round: where they should have ended, and what a step teaches."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.unit.test_training_model import shaken
from training import attending, bias, circles, evaluate, refrains, repeats
from training.circles import BESIDE, END, NOTHING, OPEN, TEXT
from training.evaluate import is_loop
from training.hands import Hands
from training.lesson import Readers, Sums, backward, outputs_of
from training.mixture import Circles, led
from training.model import Decoder, Shape, document_lengths
from training.pack import Document
from training.rates import left
from training.tokenizer import end_id

SHAPE = Shape(hidden=64, layers=4, heads=2, kv_heads=1, intermediate=64, vocabulary=96, head_dim=32)
ENDING = end_id(SHAPE.vocabulary)
HEADS = [0, 1, 0, 1, 0]


@pytest.fixture
def model() -> Decoder:
    return shaken(Decoder(SHAPE))


def test_a_run_counts_tokens_that_equal_those_a_period_before() -> None:
    row = np.array([[7, 1, 2, 1, 2, 1, 9, 1, 9]])
    assert repeats.run_lengths(row, 2).tolist() == [[0, 0, 0, 1, 2, 3, 0, 1, 2]]
    assert repeats.run_lengths(row, 2, start=4).tolist() == [[0, 0, 0, 0, 1, 2, 0, 1, 2]]


@given(st.integers(1, 50), st.integers(0, 40), st.integers(0, 2**31))
def test_a_row_that_ends_where_it_should_is_no_loop(period: int, before: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    head, circle = rng.permutation(1000)[: before + 5], 1000 + rng.permutation(100)[:period]
    row = np.concatenate([head, np.resize(circle, 160)])
    begin, whole, ripe, loop = (int(place[0]) for place in repeats.turns(row[None], len(head)))
    assert begin == len(head) + period - 1
    assert begin + 10 <= whole < ripe
    assert ripe == len(head) + period + repeats.ripe(period) - 1
    assert not is_loop(row[len(head) : loop].tolist())
    assert is_loop(row[len(head) : loop + 1].tolist())
    assert ripe < loop
    assert repeats.measures(row[None])[1][0, ripe : loop + 1].all()


def test_a_piece_wants_its_own_words_unlearned_and_an_end() -> None:
    row = np.array([1, 2, 3, *[4, 5] * 20])
    turn = repeats.Turn(*(int(place[0]) for place in repeats.turns(row[None], 3)))
    _, kinds = circles.piece(row[: turn.loop + 3], 3, turn)
    assert kinds[:2] == [TEXT, TEXT]
    assert set(kinds[2 : turn.begin + circles.DOUBT]) == {OPEN}
    assert set(kinds[turn.begin + circles.DOUBT : turn.whole]) == {NOTHING}
    assert set(kinds[turn.whole : turn.ripe]) == {BESIDE}
    assert set(kinds[turn.ripe : turn.loop]) == {END}
    assert set(kinds[turn.loop :]) == {BESIDE}


def test_pieces_that_do_not_fit_lose_their_beginning() -> None:
    pieces = [(list(range(200)), [TEXT] * 200)] * 4
    tokens, kinds = circles.packed(pieces, 350, ENDING)
    assert [len(row) for row in tokens] == [350] * len(tokens)
    assert tokens[0][200] == ENDING
    assert tokens[0][201:] == [*range(52, 200), ENDING]
    assert kinds[0][200] == NOTHING


def test_heads_are_to_look_after_the_longest_context_that_was_there() -> None:
    tokens = np.array([1, 2, 3, 9, 1, 2, 3, 5, 1, 2, 7, 2])
    places = [np.flatnonzero(row).tolist() for row in attending.followed(tokens)]
    assert places == [[], [], [], [], [1], [2], [3], [], [1, 5], [2, 6], [], [2, 6, 10]]


def test_a_heads_shares_are_those_of_its_layer(model: Decoder) -> None:
    row = torch.randint(0, 80, (9,))
    x, layer = model.embed(row[None]), model.layers[0]
    shares = attending.head_scores(layer, x, 1, [4, 5])
    assert [len(part) for part in shares] == [4, 5]
    torch.testing.assert_close(shares[1].exp().sum(dim=-1), torch.ones(5))
    nats, count = attending.attention_loss(layer, x, 1, row, attending.BEFORE, [4, 5])
    assert count == 7
    wanted = -sum(part.diagonal(-1).sum() for part in shares)
    torch.testing.assert_close(nats, wanted)


def test_gradients_are_those_of_the_losses_said(model: Decoder) -> None:
    row = torch.randint(0, 80, (65,))
    row[20] = ENDING
    kinds = np.zeros(65, np.uint8)
    kinds[10:30], kinds[30:40], kinds[40:45], kinds[45:50] = OPEN, END, BESIDE, NOTHING
    backward(model, Readers(SHAPE), row, kinds, 64, (1.5, 0.7, 0.0, 0.0), HEADS)
    found = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    states = outputs_of(model, row[None, :-1], document_lengths(row[:-1], ENDING))[0][0]
    scores = F.log_softmax(states @ model.embed.weight.T, dim=-1)
    ends = scores[:, ENDING]
    loss = -scores[range(10), row[1:11]].sum() - scores[range(50, 64), row[51:]].sum()
    loss = loss - 0.7 * torch.log1p(-ends[10:30].exp()).sum()
    loss = loss - 1.5 * ends[30:40].sum() - 0.75 * ends[40:45].sum()
    (loss / 64).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_steps_teach_where_to_look(model: Decoder) -> None:
    row = torch.randint(0, 12, (49,))
    row[30:48] = row[10:28]
    readers = Readers(SHAPE)
    optim = torch.optim.Adam(model.parameters(), lr=0.003)
    looked = []
    for _ in range(40):
        optim.zero_grad()
        sums = backward(model, readers, row, None, 48, (1.0, 1.0, 0.1, 1.0), HEADS)
        looked.append(sums.looked)
        optim.step()
    assert (looked[-1] < 0.5 * looked[0]).all()


def test_every_second_document_begins_with_an_end_that_it_sees() -> None:
    piece = [1] * 70
    row = torch.tensor([*piece, ENDING, *piece, ENDING, *piece])
    for turn, starts in ((0, [0, 142]), (1, [71])):
        made = led(row, ENDING, turn, every=True)
        assert (made != row).nonzero().flatten().tolist() == starts
        assert document_lengths(made, ENDING) == [71, 71, 70]
    assert (led(row, ENDING, 0, every=False) != row).nonzero().flatten().tolist() == [0]
    assert torch.equal(led(row, ENDING, 1, every=False), row)


def test_the_last_layer_is_to_look_where_a_repetition_began() -> None:
    tokens = np.array([9, *range(1, 21), 30, *range(1, 17)])
    found = [np.flatnonzero(row).tolist() for row in attending.broken(tokens)]
    assert found[: 22 + 3] == [[]] * 25
    assert found[22 + 3 :] == [[21]] * 10 + [[0]] * 3


def test_two_processes_learn_what_one_does(model: Decoder) -> None:
    rows, readers = torch.randint(0, 80, (5, 33)), Readers(SHAPE)

    def learn(row: int, places: list[int]) -> Sums:
        row += places[0]
        return backward(model, readers, rows[row], None, 99, (1.0, 1.0, 0.1, 0.1), HEADS)

    found, sums = [], []
    for count in (1, 2):
        hands = Hands([model, readers], learn, 3, count)
        for _ in range(2):
            model.zero_grad(set_to_none=True)
            readers.zero_grad(set_to_none=True)
            sums.append(hands.step([2]))
        found.append([p.grad for m in (model, readers) for p in m.parameters()])
        hands.close()
    assert [one.texts for one in sums] == [96] * 4
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_circles_of_two_files_are_read_together(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        rows = [[10 * number + row, number] for row in range(3)]
        circles.write(tmp_path / name, rows, rows)
    both = Circles([tmp_path / "one", tmp_path / "two"])
    read = [both.read(at) for at in range(6)]
    assert sorted(row.tolist()[0] for row, _ in read) == [0, 1, 2, 10, 11, 12]
    assert all(row.tolist() == kinds.tolist() for row, kinds in read)
    assert both.name == "one+two"


def test_a_refrain_is_kept_where_the_end_is_probable_and_forbidden_where_it_repeats() -> None:
    ids = [*range(300), *range(280, 300), *range(400, 500)]
    chance = np.zeros(len(ids))
    assert refrains.piece(ids, chance) is None
    chance[312] = 0.5
    found = refrains.piece(ids, chance)
    assert found is not None
    kept, kinds = found
    assert kept == ids[312 - refrains.BEFORE : 312 + refrains.AFTER]
    begin = 300 + refrains.AGAIN - 1 - (312 - refrains.BEFORE)
    assert set(kinds[:begin]) == {TEXT}
    assert set(kinds[begin : begin + 13]) == {OPEN}
    assert set(kinds[begin + 13 :]) == {TEXT}


def test_a_decay_takes_the_rate_to_zero_and_none_leaves_it() -> None:
    assert [left(gone, 20) for gone in (0, 5, 20, 21)] == [1.0, 0.75, 0.0, 0.0]
    assert left(5, 0) == 1.0


class EndsAfterSevens:
    def logits(self, tokens: torch.Tensor) -> torch.Tensor:
        return F.one_hot(torch.where(tokens == 7, ENDING, 0), SHAPE.vocabulary).float()


def test_wrong_ends_are_counted_where_text_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"python": ["abc" * 500 + "777" + "abc"], "c": ["a7"]}
    monkeypatch.setattr(
        evaluate,
        "read",
        lambda _, name: [Document("p", "f", text) for text in files.get(name, [])],
    )
    subject = SimpleNamespace(
        model=EndsAfterSevens(), end=ENDING, encode=lambda text: [ord(c) - 48 for c in text]
    )
    found = evaluate.wrong_ends(subject, 1000, led=False)
    assert found["tokens"] == 1023 + (1506 - 1024 - 1) + 1
    assert found["per_10000"] == 3 * 10_000 / found["tokens"]
    assert (found["pieces"], found["pieces_with_one"]) == (3, 1)
    assert evaluate.wrong_ends(subject, 1000, led=True)["tokens"] == 1506 + 2


def test_the_end_becomes_less_likely_by_as_much_as_asked_and_nothing_else_does(
    model: Decoder,
) -> None:
    rows = list(torch.randint(0, 80, (3, 33)))
    with torch.no_grad():
        model.norm.weight[5] = 40.0  # a direction that every state has
        model.layers[3].down.weight[5] = 0.0
        model.embed.weight[:, 5] = 1.0
        before = model.logits(rows[0][None])[0]
        mean, spread = bias.shifted(model, rows, -0.6)
        changes = model.logits(rows[0][None])[0] - before
    assert mean == pytest.approx(-0.6, abs=0.05)
    assert spread < 0.15
    assert changes[:, ENDING].mean() == pytest.approx(-0.6, abs=0.1)
    assert changes[:, :ENDING].abs().max() == 0


def test_too_few_pieces_for_a_row_are_told_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="--pieces"):
        circles.write(tmp_path / "few", *circles.packed([([1, 2, 3], [0, 0, 0])], 1024, 9))
    assert not list(tmp_path.iterdir())
