"""A lookahead in one call against the same, step by step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from atlasd_kernels.cpu import CpuDecoder, choose, draft_chain, top_k

from tests.kernels.conftest import FORMATS

HEAD = np.array([3, 4, 9, 30, 77, 150, 151, 200, 299, 300], np.int32)


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_chain_equals_single_steps(
    weight_format: str, temperature: float, reduced: bool, make_decoder: Callable[..., CpuDecoder]
) -> None:
    decoder = make_decoder("llama", weight_format=weight_format)
    head = HEAD if reduced else None
    chain = draft_chain(
        decoder, [5], 0, 0, 12, temperature=temperature, seed=9, output_index=4, head_tokens=head
    )
    token = 5
    for i in range(12):
        row = np.array([i], np.int32)
        logits = decoder.forward(np.array([token], np.int32), row * 0 + 1, row, row * 0).copy()
        if reduced:
            outside = np.setdiff1d(np.arange(logits.shape[1]), HEAD)
            logits[:, outside] = -np.inf
        token = int(choose(logits, temperature=temperature, seed=9, output_index=4 + i)[0])
        assert chain.tokens[i] == token
        wanted = np.exp(logits[0, token] - top_k(logits, 1)[2][0])
        assert chain.probabilities[i] == pytest.approx(wanted, rel=1e-4)


def test_a_chain_stops_where_its_reach_falls_below_the_threshold(
    make_decoder: Callable[..., CpuDecoder],
) -> None:
    decoder = make_decoder("llama")
    full = draft_chain(decoder, [5], 0, 0, 30)
    reach = np.cumprod(full.probabilities)
    threshold = float(np.sqrt(reach[6] * reach[7]))
    stopped = draft_chain(decoder, [5], 0, 0, 30, stop_probability=threshold)
    assert stopped.tokens.tolist() == full.tokens[:7].tolist()


def test_a_chain_ends_with_its_slot(make_decoder: Callable[..., CpuDecoder]) -> None:
    decoder = make_decoder("llama", slot_tokens=40)
    assert len(draft_chain(decoder, [5], 0, 35, 30).tokens) == 5


def test_a_slot_is_intact_behind_a_chain(make_decoder: Callable[..., CpuDecoder]) -> None:
    """Rows that drafting wrote are as good as any: they are the drafter's own decoding."""
    decoder = make_decoder("qwen2")
    chain = draft_chain(decoder, [5], 0, 0, 8)
    tokens = np.concatenate([[5], chain.tokens]).astype(np.int32)
    last = np.array([8], np.int32)
    after = decoder.forward(tokens[-1:], last * 0, last, last * 0).copy()
    rows = np.arange(9, dtype=np.int32)
    assert np.array_equal(after, decoder.forward(tokens, rows * 0 + 1, rows, last))
