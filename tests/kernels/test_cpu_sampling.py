"""Native choice of tokens against numpy."""

from __future__ import annotations

import numpy as np
import pytest
from atlasd_kernels.cpu import choose, top_k
from atlasd_kernels.noise import gumbel_row

VOCABS = [5, 64, 301, 8192, 152_064]


def logits_of(rows: int, vocab: int) -> np.ndarray:
    return (np.random.default_rng(vocab).normal(size=(rows, vocab)) * 4).astype(np.float32)


@pytest.mark.parametrize("vocab", VOCABS)
def test_temperature_zero_is_argmax_with_ties_to_the_lowest_id(vocab: int) -> None:
    logits = np.round(logits_of(9, vocab))
    assert np.array_equal(choose(logits), logits.argmax(axis=1))


@pytest.mark.parametrize("vocab", VOCABS)
def test_sampling_is_argmax_of_logits_and_keyed_noise(vocab: int) -> None:
    rows = 12 if vocab > 10_000 else 60
    logits = logits_of(rows, vocab)
    logits[:, ::3] = -np.inf  # masked
    indices = np.arange(rows, dtype=np.int32)
    seed = 0xFEED_0000_0001
    found = choose(logits, temperature=0.7, seed=seed, choice=2, output_index=indices)
    for row, token in enumerate(found):
        noisy = logits[row] / np.float32(0.7) + gumbel_row(seed, 2, row, vocab)
        assert noisy[token] >= noisy.max() - 1e-4  # equal but for the rounding of two logs
        assert np.isfinite(logits[row, token])


@pytest.mark.parametrize("spread", [0.0, 0.3, 4.0, 15.0])
def test_no_winner_is_passed_over_however_far_below_it_lies(spread: float) -> None:
    """Tokens whose noise cannot lift them are skipped before that noise is made of its bits."""
    draw = np.random.default_rng(1)
    logits = (draw.normal(size=(400, 1000)) * spread).astype(np.float32)
    indices = np.arange(400, dtype=np.int32)
    found = choose(logits, temperature=1.0, seed=5, choice=1, output_index=indices)
    for row, token in enumerate(found):
        noisy = logits[row] + gumbel_row(5, 1, row, 1000)
        assert noisy[token] >= noisy.max() - 1e-4


def test_sampling_follows_the_distribution() -> None:
    logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32)).repeat(20_000, axis=0)
    tokens = choose(logits, temperature=1.0, seed=3, output_index=np.arange(20_000, dtype=np.int32))
    assert np.allclose(np.bincount(tokens) / 20_000, [0.5, 0.3, 0.2], atol=0.015)


def test_any_integer_is_a_seed() -> None:
    logits = logits_of(1, 301)
    for seed in (-1, 2**64 - 1, 2**63, -(2**63)):
        noisy = logits[0] + gumbel_row(seed, 0, 0, 301)
        assert choose(logits, temperature=1.0, seed=seed)[0] == noisy.argmax()


@pytest.mark.parametrize("vocab", VOCABS)
def test_top_k_equals_a_stable_sort(vocab: int) -> None:
    logits = np.round(logits_of(5, vocab), 2)
    k = min(8, vocab)
    ids, logprobs, totals = top_k(logits, k)
    assert np.array_equal(ids, np.argsort(-logits, axis=1, kind="stable")[:, :k])
    wanted = np.log(np.exp(logits.astype(np.float64)).sum(axis=1))
    assert np.allclose(totals, wanted, atol=1e-5)
    assert np.allclose(logprobs, np.take_along_axis(logits, ids, 1) - wanted[:, None], atol=1e-5)
