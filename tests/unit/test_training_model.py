"""The trained decoder: cached decoding, growth, Muon, workers, and heads that look back."""

from typing import TypeVar

import pytest
import torch

from training import bigram, generate, muon
from training.grow import grow
from training.model import Decoder, Shape, document_lengths, rope_tables, rotate
from training.train import optimisers
from training.workers import Workers, backward

M = TypeVar("M", bound=Decoder)
SHAPE = Shape(hidden=64, layers=2, heads=2, kv_heads=1, intermediate=64, vocabulary=96, head_dim=32)


@pytest.fixture
def model() -> Decoder:
    return shaken(Decoder(SHAPE))


def shaken(model: M) -> M:
    """The model with random parameters instead of those that do nothing yet."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return model


def test_cached_batches_decode_as_whole_sequences_do(model: Decoder) -> None:
    prompts = torch.randint(0, 96, (3, 17)).tolist()
    made = generate.continue_all(model, prompts, 6, stop=-1)
    for prompt, continuation in zip(prompts, made, strict=True):
        tokens = list(prompt)
        for token in continuation:
            with torch.no_grad():
                assert int(model.logits(torch.tensor([tokens]))[0, -1].argmax()) == token
            tokens.append(token)


def test_documents_of_a_row_do_not_look_at_each_other(model: Decoder) -> None:
    torch.manual_seed(1)
    row = torch.randint(0, 90, (1, 300))
    row[0, [20, 99, 250]] = 95  # too short, a document, too short a rest
    assert document_lengths(row[0], 95) == [100, 200]
    apart = model.hidden(row, end=95)
    other = row.clone()
    other[0, :100] = torch.randint(0, 90, (100,))
    other[0, 99] = 95
    torch.testing.assert_close(model.hidden(other, end=95)[:, 100:], apart[:, 100:])
    torch.testing.assert_close(apart[:, :100], model.hidden(row)[:, :100])
    assert not torch.allclose(apart[:, 100:], model.hidden(row)[:, 100:])


def test_growing_keeps_what_is_computed(model: Decoder) -> None:
    tokens = torch.randint(0, 96, (1, 20))
    taller = grow(model, 5)
    assert taller.shape.layers == 5
    torch.testing.assert_close(taller.logits(tokens), model.logits(tokens))


def test_orthogonalised_updates_have_singular_values_near_one() -> None:
    torch.manual_seed(0)
    made = muon.orthogonalise(torch.randn(2, 64, 160))
    values = torch.linalg.svdvals(made)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.4


def test_two_workers_take_the_step_that_one_process_takes(model: Decoder) -> None:
    batch = torch.randint(0, 96, (4, 33))
    alone = Decoder(SHAPE)
    alone.load_state_dict(model.state_dict())
    step, adam = optimisers(alone, lr=0.01, embed_lr=0.001)
    wanted = sum(backward(alone, batch[i : i + 1], 4) for i in range(4))
    step.param_groups[0]["momentum"] = 0.9
    step.step()
    adam.step()

    step, adam = optimisers(model, lr=0.01, embed_lr=0.001)
    workers = Workers(model, step, lambda position, rows: batch[position : position + rows], 2)
    made = workers.step(position=0, parts=4, rows=1, rate=0.01, momentum=0.9)
    adam.step()
    workers.close()
    assert made == pytest.approx(wanted, abs=1e-5)
    for one, other in zip(model.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_biased_heads_look_back_by_their_number() -> None:
    model = Decoder(Shape(hidden=64, layers=1, heads=3, kv_heads=1, intermediate=64, vocabulary=9))
    layer = model.layers[0]
    bigram.look_back(layer, model.shape)
    q, k, _ = layer.qkv.bias.data.split(layer.splits)
    cos, sin = rope_tables(model.shape, 12)
    queries = rotate(q.view(1, 1, 3, 64).expand(1, 12, 3, 64), cos, sin)[0, -1]
    keys = rotate(k.view(1, 1, 1, 64).expand(1, 12, 1, 64), cos, sin)[0, :, 0]
    weights = (queries @ keys.T / 8).softmax(dim=-1)  # [heads, positions] of the last query
    assert weights[:2].argmax(dim=-1).tolist() == [10, 9]
    assert float(weights[:2].max(dim=-1).values.min()) > 0.7
