"""Drafters in training: what they look back at, how they grow, and the rows they are taught on."""

import numpy as np
import pytest
import torch
from atlasd_kernels.cpu import CpuDecoder, available

from tests.kernels.checkpoints import make_model, spec_of, tensors_of
from tests.unit.test_training_model import shaken
from training import generated
from training.carry import DraftModel, student_states
from training.distill import widened
from training.export import load_draft_model, write_extras
from training.generate import Cache, follow
from training.model import Decoder, Shape

SHAPE = Shape(hidden=64, layers=1, heads=2, kv_heads=1, intermediate=64, vocabulary=96, head_dim=32)


@pytest.fixture
def model() -> DraftModel:
    return shaken(DraftModel(SHAPE))


def test_without_its_extras_a_draft_model_is_a_decoder(model: DraftModel) -> None:
    tokens = torch.randint(0, 96, (2, 20))
    plain = Decoder(SHAPE)
    plain.load_state_dict(model.state_dict(), strict=False)
    assert not torch.allclose(model.hidden(tokens), plain.hidden(tokens))
    model.layers[0].smear.weight.data.zero_()  # type: ignore[union-attr]
    torch.testing.assert_close(model.hidden(tokens), plain.hidden(tokens))


def test_keys_know_the_token_before_and_nothing_behind(model: DraftModel) -> None:
    """What comes after the second row sees of the first only what a key of the second says."""
    tokens = torch.randint(0, 90, (1, 12))
    other = tokens.clone()
    other[0, 7] = 95
    one, two = (model.hidden(t)[0] for t in (tokens, other))
    torch.testing.assert_close(one[:7], two[:7])
    assert not torch.allclose(one[7], two[7])


def test_a_cache_is_read_in_pieces_as_in_one(model: DraftModel) -> None:
    tokens = torch.randint(0, 96, (2, 20))
    whole = model.through(model.embed(tokens), normed=False)
    cache = Cache(model, 24, 2)
    for start, end in ((0, 5), (5, 6), (6, 20)):
        last = follow(model, tokens[:, start:end], cache)
        torch.testing.assert_close(last, whole[:, end - 1])
    cache.length = 9  # a draft was refused
    torch.testing.assert_close(follow(model, tokens[:, 9:11], cache), whole[:, 10])


def test_a_wider_model_says_the_same(model: DraftModel) -> None:
    tokens, known = torch.randint(0, 96, (1, 20)), torch.randn(1, 20, 64)
    depth = torch.randint(-1, 4, (1, 20))
    wide = widened(model, 128)
    assert wide.shape.intermediate == 128
    wanted = student_states(model, tokens, known, depth)
    torch.testing.assert_close(student_states(wide, tokens, known, depth), wanted)


def test_extras_are_kept_beside_a_checkpoint(model: DraftModel, tmp_path, monkeypatch) -> None:
    plain = Decoder(SHAPE)
    monkeypatch.setattr("training.export.load", lambda folder: plain)
    write_extras(model, tmp_path)
    loaded = load_draft_model(tmp_path)
    assert torch.equal(loaded.carry.weight, model.carry.weight)
    assert torch.equal(loaded.layers[0].smear.weight, model.layers[0].smear.weight)  # type: ignore


@pytest.mark.skipif(not available()[0], reason=available()[1] or "native")
def test_generated_rows_keep_the_data_and_go_on_as_transformers_does(monkeypatch) -> None:
    """Greedy rows; between two pieces of its own the target reads the data again."""
    monkeypatch.setattr(generated, "GIVEN", 9)
    monkeypatch.setattr(generated, "WRITTEN", 5)
    reference = make_model("qwen2")
    decoder = CpuDecoder(
        spec_of(reference), tensors_of(reference), weight_format="fp32", slots=3, slot_tokens=64
    )
    given = np.random.default_rng(0).integers(0, decoder.vocab_size, (3, 29)).astype(np.int32)
    made = generated.continued(decoder, given, seed=1)
    for start in (0, 14):
        assert np.array_equal(made[:, start : start + 9], given[:, start : start + 9])
    assert np.array_equal(made[:, 28], given[:, 28])
    assert not np.array_equal(made, given)
    for row in (0, 2):
        tokens = torch.from_numpy(made[row][None].astype(np.int64))
        with torch.no_grad():
            best = reference(tokens).logits[0].argmax(-1).numpy()
        for start in (9, 23):
            written = slice(start, start + 5)
            assert np.array_equal(made[row, written], best[start - 1 : start + 4])
    decoder.close()
