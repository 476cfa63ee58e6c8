"""Keys that know of the token before, against transformers with a hook that adds it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.cpu.correction import last_states
from atlasd_kernels.cpu.drafting import draft_chain

from tests.kernels.checkpoints import make_model, reference_logits
from tests.kernels.conftest import FORMATS, ISAS
from tests.kernels.test_cpu_logits import all_logits, relative, tokens_of

LENGTH = 150


def some_smear(decoder: CpuDecoder) -> np.ndarray:
    spec = decoder.spec
    shape = (spec.kv_heads * spec.head_dim, spec.hidden_size)
    return np.random.default_rng(4).standard_normal(shape).astype(np.float32) * np.float32(0.2)


def logits_of(decoder: CpuDecoder, tokens: np.ndarray, position: int, slot: int) -> np.ndarray:
    rows = np.arange(len(tokens), dtype=np.int32)
    return decoder.forward(tokens, np.full_like(rows, slot), rows + position, rows).copy()


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("family", ["qwen2", "llama"])
def test_the_token_before_adds_to_keys_of_the_first_layer(
    family: str, isa: str, make_decoder: Callable[..., CpuDecoder]
) -> None:
    model = make_model(family)
    decoder = make_decoder(family, weight_format="fp32", isa=isa)
    tokens = tokens_of(model.config.vocab_size, LENGTH)
    plain = reference_logits(model, tokens.tolist())
    smear = torch.from_numpy(some_smear(decoder))

    def add(module: Any, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        before = torch.nn.functional.pad(given[0][:, :-1], (0, 0, 1, 0))
        return out + before @ smear.T.to(before.dtype)

    model.model.layers[0].self_attn.k_proj.register_forward_hook(add)
    wanted = reference_logits(model, tokens.tolist())
    assert relative(plain, wanted) > 0.1
    decoder.set_smear(smear.numpy())
    assert relative(all_logits(decoder, tokens), wanted) < 1e-4


@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_smeared_row_has_the_same_bits_however_its_text_was_read(
    weight_format: str, make_decoder: Callable[..., CpuDecoder]
) -> None:
    """In one call, in pieces, behind a chain, beside another slot, and from a copied prefix."""
    decoder = make_decoder("qwen2", weight_format=weight_format)
    decoder.set_smear(some_smear(decoder))
    tokens = tokens_of(decoder.vocab_size, 290)
    whole = logits_of(decoder, tokens, 0, 0)
    for cuts in ([1], [7, 8, 200], [256, 257]):
        pieces = np.split(tokens, cuts)
        starts = [0, *cuts]
        parts = [logits_of(decoder, p, at, 1) for p, at in zip(pieces, starts, strict=True)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    decoder.copy_prefix(0, 2, 100)
    assert logits_of(decoder, tokens[100:], 100, 2).tobytes() == whole[100:].tobytes()
    # rows of two slots in turn: nobody's row lies before its own
    slots = np.array([0, 1] * 20, np.int32)
    places = np.repeat(np.arange(20, dtype=np.int32), 2)
    both = decoder.forward(tokens[places], slots, places, np.arange(40, dtype=np.int32))
    assert both[::2].tobytes() == whole[:20].tobytes() == both[1::2].tobytes()


def test_what_a_chain_wrote_is_smeared_as_any_text(
    make_decoder: Callable[..., CpuDecoder],
) -> None:
    decoder = make_decoder("qwen2")
    decoder.set_smear(some_smear(decoder))
    chain = draft_chain(decoder, [5, 9], 0, 0, 8)
    tokens = np.array([5, 9, *chain.tokens], np.int32)
    after = logits_of(decoder, tokens[-1:], 9, 0)
    assert after.tobytes() == logits_of(decoder, tokens, 0, 1)[-1:].tobytes()
    # a draft that was refused is forgotten with the tokens that take its place
    other = np.array([5, 9, 3, 4], np.int32)
    draft_chain(decoder, other[2:], 0, 2, 1)
    assert last_states(decoder, other[3:], 0, 3).tobytes() == (
        last_states(decoder, other, 1, 0)[-1:].tobytes()
    )


def test_a_smear_that_does_not_fit_is_refused(make_decoder: Callable[..., CpuDecoder]) -> None:
    decoder = make_decoder("qwen2")
    with pytest.raises(ValueError, match="smeared by"):
        decoder.set_smear(np.zeros((3, decoder.spec.hidden_size), np.float32))
