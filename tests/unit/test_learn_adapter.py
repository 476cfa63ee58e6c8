"""The adapter's arithmetic against torch autograd, and its weights as bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from atlasd.learn.adapter import Adapter
from atlasd.learn.loss import DISCOUNT, KL, Wanted, loss_and_gradient, reach_and_worth
from atlasd.learn.training import Places, Trainer, Window

ROWS, HEAD, TOP = 9, 12, 4


def wanted(seed: int) -> Wanted:
    draw = np.random.default_rng(seed)
    choice = draw.integers(-1, HEAD, ROWS).astype(np.int32)
    others = np.stack([draw.permutation(HEAD)[: TOP - 1] for _ in range(ROWS)]).astype(np.int32)
    others[others == choice[:, None]] = -1
    top = np.concatenate([choice[:, None], others], axis=1)
    probability = draw.dirichlet(np.ones(TOP + 1), ROWS)[:, :TOP].astype(np.float32)
    return Wanted(choice, top, probability)


def torch_loss(logits: torch.Tensor, target: Wanted) -> torch.Tensor:
    """The loss as its docstring has it, written out chain by chain."""
    q = logits.softmax(-1)
    accepted = [
        q[i, c] if c >= 0 else torch.zeros(()) for i, c in enumerate(target.choice.tolist())
    ]
    total = torch.zeros(())
    for start in range(ROWS):
        product, factor = torch.ones(()), 1.0
        for row in range(start, ROWS):
            product = product * accepted[row]
            total = total + factor * product
            factor *= DISCOUNT
    divergence = torch.zeros(())
    for i in range(ROWS):
        pairs = [
            (p, v)
            for p, v in zip(target.probability[i].tolist(), target.top[i].tolist(), strict=True)
            if v >= 0 and p > 0
        ]
        share = sum(p for p, _ in pairs)
        for p, v in pairs:
            divergence = divergence + p * (np.log(p / share) - q[i, v].log())
    return (-total + KL * divergence) / ROWS


@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_that_of_autograd(seed: int) -> None:
    target = wanted(seed)
    logits = np.random.default_rng(seed + 10).standard_normal((ROWS, HEAD)) * 2
    leaf = torch.tensor(logits, requires_grad=True)
    expected = torch_loss(leaf, target)
    expected.backward()
    loss, gradient = loss_and_gradient(logits.astype(np.float32), target)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-4)
    assert np.allclose(gradient, leaf.grad.numpy(), atol=2e-6)


def test_reach_and_worth_of_rows_that_are_certain() -> None:
    reach, worth = reach_and_worth(np.ones(3, np.float32))
    assert worth[0] == pytest.approx(1 + DISCOUNT + DISCOUNT**2)
    assert reach[2] == pytest.approx(1 + DISCOUNT + DISCOUNT**2)


class _Directions(Trainer):
    """Notes the gradients instead of taking the steps."""

    def _update(self, name, rows, gradient, rate) -> None:
        self.gradients = getattr(self, "gradients", {})
        full = np.zeros_like(getattr(self.adapter, name))
        full[rows] = gradient
        self.gradients[name] = full


def test_the_gradients_of_all_weights_are_those_of_autograd() -> None:
    draw = np.random.default_rng(0)
    vocab, hidden = 20, 16
    head = draw.permutation(vocab)[:HEAD].astype(np.int32)
    adapter = Adapter.fresh(head, hidden, vocab)
    for name in ("up", "last", "before", "bias"):
        array = getattr(adapter, name)
        array[:] = draw.standard_normal(array.shape) * 0.3
    embedding = draw.standard_normal((vocab, hidden)).astype(np.float32)
    tokens = draw.integers(0, vocab, ROWS + 1).astype(np.int32)
    states = draw.standard_normal((ROWS, hidden)).astype(np.float32)
    top = np.stack([draw.permutation(vocab)[:TOP] for _ in range(ROWS)]).astype(np.int32)
    logprobs = np.log(draw.dirichlet(np.ones(TOP), ROWS) * 0.9).astype(np.float32)
    logprobs[3] = np.nan  # a row of which only the choice is known
    window = Window(states, tokens[1:], tokens[:-1], top, logprobs)

    trainer = _Directions(adapter, lambda ids: embedding[ids])
    trainer.step(window)

    names = ("down", "up", "last", "before", "bias")
    leaves = {n: torch.tensor(getattr(adapter, n), requires_grad=True) for n in names}
    x, y = (torch.tensor(t.astype(np.int64)) for t in (tokens[1:], tokens[:-1]))
    h = torch.tensor(states)
    z = h @ leaves["down"] + leaves["last"][x] + leaves["before"][y]
    ids = torch.tensor(head.astype(np.int64))
    logits = (h + z @ leaves["up"]) @ torch.tensor(embedding)[ids].T + leaves["bias"][ids]
    torch_loss(logits, Places(head, vocab).wanted(window)).backward()
    for name in names:
        expected = leaves[name].grad.numpy()
        assert np.allclose(trainer.gradients[name], expected, atol=1e-5), name


def test_a_fresh_adapter_changes_no_logit() -> None:
    draw = np.random.default_rng(0)
    embedding = draw.standard_normal((20, 16)).astype(np.float32)
    states = draw.standard_normal((5, 16)).astype(np.float32)
    adapter = Adapter.fresh(np.arange(20, dtype=np.int32), 16, 20)
    tokens = np.arange(5, dtype=np.int32)
    corrected = adapter.logits(states, tokens, tokens, embedding)
    assert corrected.tobytes() == (states @ embedding.T).tobytes()


def test_weights_survive_as_bytes_and_damage_is_noticed() -> None:
    adapter = Adapter.fresh(np.arange(20, dtype=np.int32), 16, 20)
    adapter.up += 0.25
    adapter.bias[3] = 0.5
    raw = adapter.to_bytes()
    again = Adapter.from_bytes(raw, 16, 20)
    assert again is not None
    assert np.array_equal(again.up, adapter.up)
    assert np.array_equal(again.bias, adapter.bias)
    assert Adapter.from_bytes(raw, 17, 20) is None
    assert Adapter.from_bytes(raw, 16, 19) is None
    assert Adapter.from_bytes(raw[: len(raw) // 2], 16, 20) is None
    assert Adapter.from_bytes(b"", 16, 20) is None
    adapter.up[0, 0] = np.nan
    assert Adapter.from_bytes(adapter.to_bytes(), 16, 20) is None


def test_what_cannot_be_learned_does_not_undo_a_good_drafter() -> None:
    """A target that says what the drafter says at half of the rows, and at the others whatever."""
    draw = np.random.default_rng(3)
    vocab, hidden, rows = 256, 96, 1024
    embedding = 0.4 * draw.standard_normal((vocab, hidden)).astype(np.float32)

    def window(count: int) -> Window:
        states = draw.standard_normal((count, hidden)).astype(np.float32)
        says = (states @ embedding.T).argmax(axis=1)
        choice = np.where(draw.random(count) < 0.5, says, draw.integers(0, vocab, count))
        top = np.full((count, TOP), -1, np.int32)
        top[:, 0] = choice
        last, before = draw.integers(0, vocab, (2, count)).astype(np.int32)
        return Window(states, last, before, top, np.full((count, TOP), np.nan, np.float32))

    def agrees(adapter: Adapter, seen: Window) -> float:
        logits = adapter.logits(seen.states, seen.last, seen.before, embedding)
        return float((logits.argmax(axis=1) == seen.top[:, 0]).mean())

    known, unseen = window(rows), window(4096)
    head = np.arange(vocab, dtype=np.int32)
    trainer = Trainer(Adapter.fresh(head, hidden, vocab), lambda ids: embedding[ids])
    before = agrees(trainer.adapter, unseen)
    for _ in range(150):
        at = int(draw.integers(rows - 32))
        part = slice(at, at + 32)
        trainer.step(
            Window(
                known.states[part],
                known.last[part],
                known.before[part],
                known.top[part],
                known.logprobs[part],
            )
        )
    # Of the rows it was right at it keeps most; with a weight of 0.3 on the KL, and four times the
    # rate, it kept four in ten.
    assert agrees(trainer.adapter, unseen) > 0.6 * before
