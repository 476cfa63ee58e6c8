"""Choosing tokens: against transformers' logits processors, a naive loop, and the reference
noise of the kernels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from atlasd_kernels import cpu
from atlasd_kernels.noise import gumbel, gumbel_row, philox
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.engine.native import ChooseNatively
from atlasd.engine.protocol import Sampling
from atlasd.engine.sampling import (
    FEW,
    Sampler,
    check_sampling,
    choose_row,
    kept_tokens,
    logprobs_of,
    top_choices,
)
from atlasd.errors import EngineError, RequestError

VOCAB = 300


def logits(rows: int, seed: int, vocab: int = VOCAB) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 3, (rows, vocab)).astype(np.float32)


def test_philox_is_the_published_one():
    # Known answers of the Random123 distribution (kat_vectors, philox4x32 10).
    def words(key: tuple[int, int], counter: list[int]) -> list[int]:
        counters = tuple(np.array([word], dtype=np.uint64) for word in counter)
        return philox(key[0] | key[1] << 32, counters)[:, 0].tolist()  # type: ignore[arg-type]

    ones = 0xFFFFFFFF
    assert words((0, 0), [0] * 4) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert words((ones, ones), [ones] * 4) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert words((0xA4093822, 0x299F31D0), [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]) == [
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    ]


def test_noise_of_a_few_tokens_is_that_of_the_whole_row():
    row = gumbel_row(2**40 + 7, 3, 11, VOCAB)
    ids = np.array([0, 5, 6, 299, 4])
    assert (gumbel(2**40 + 7, 3, 11, ids) == row[ids]).all()
    assert row.shape == (VOCAB,)


def test_noise_is_gumbel_distributed_and_differs_by_every_part_of_its_key():
    sample = np.concatenate([gumbel_row(1, 0, index, 50_000) for index in range(4)])
    assert abs(sample.mean() - 0.5772) < 0.01
    assert abs(sample.var() - math.pi**2 / 6) < 0.02
    first = gumbel_row(1, 0, 0, 64)
    for other in (gumbel_row(2, 0, 0, 64), gumbel_row(1, 1, 0, 64), gumbel_row(1, 0, 1, 64)):
        assert (first != other).any()


@pytest.mark.parametrize("top_k", [0, 1, 7, VOCAB, 10 * VOCAB])
@pytest.mark.parametrize("top_p", [1.0, 0.95, 0.5, 0.01])
@pytest.mark.parametrize("min_p", [0.0, 0.02, 0.3, 1.0])
def test_filters_keep_what_transformers_keeps(top_k, top_p, min_p):
    torch = pytest.importorskip("torch")
    from transformers import MinPLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    for seed in range(5):
        row = logits(1, seed)
        scores = torch.from_numpy(row.copy())
        if top_k:
            scores = TopKLogitsWarper(top_k)(None, scores)
        if top_p < 1:
            scores = TopPLogitsWarper(top_p)(None, scores)
        if min_p:
            scores = MinPLogitsWarper(min_p)(None, scores)
        expected = np.flatnonzero(scores[0].numpy() > -np.inf)
        assert kept_tokens(row[0], top_k, top_p, min_p).tolist() == expected.tolist()


def test_a_wide_nucleus_is_cut_as_a_full_sort_would_cut_it():
    row = np.random.default_rng(0).normal(0, 0.1, 20_000).astype(np.float32)
    weights = np.exp(row.astype(np.float64) - row.max())
    order = np.argsort(-weights, kind="stable")
    sums = np.cumsum(weights[order])
    count = int(np.searchsorted(sums, 0.7 * weights.sum())) + 1
    assert kept_tokens(row, 0, 0.7, 0.0).tolist() == sorted(order[:count].tolist())
    assert count > FEW


def test_repetition_penalty_is_that_of_transformers():
    torch = pytest.importorskip("torch")
    from transformers import RepetitionPenaltyLogitsProcessor

    prompt, row = [3, 8, 8, 200], logits(1, 0)
    expected = RepetitionPenaltyLogitsProcessor(1.7)(
        torch.tensor([[*prompt, 41]]), torch.from_numpy(row.copy())
    )
    sampler = Sampler(Sampling(repetition_penalty=1.7), prompt, VOCAB)
    sampler.accept([41])
    assert np.array_equal(sampler._adjusted(row[0], []), expected[0].numpy())


samplings = st.builds(
    Sampling,
    temperature=st.sampled_from([0.0, 0.7, 1.3]),
    top_p=st.sampled_from([1.0, 0.8]),
    top_k=st.sampled_from([0, 12]),
    min_p=st.sampled_from([0.0, 0.05]),
    repetition_penalty=st.sampled_from([1.0, 1.3]),
    presence_penalty=st.sampled_from([0.0, 0.6]),
    frequency_penalty=st.sampled_from([0.0, -0.4]),
    logit_bias=st.dictionaries(st.integers(0, 19), st.floats(-5, 5, width=32), max_size=3),
    seed=st.integers(0, 2**64 - 1),
    choice=st.integers(0, 3),
)


def naive_token(row: np.ndarray, sampling: Sampling, prompt: list[int], output: list[int]) -> int:
    """The same definition, one token at a time in plain Python."""
    scores = [float(value) for value in row]
    for token, bias in sampling.logit_bias.items():
        scores[token] += bias
    for token in set(prompt + output):
        penalty = sampling.repetition_penalty
        scores[token] *= penalty if scores[token] < 0 else 1 / penalty
    for token in set(output):
        scores[token] -= sampling.presence_penalty
        scores[token] -= sampling.frequency_penalty * output.count(token)
    if not sampling.temperature:
        return scores.index(max(scores))
    scores = [score / sampling.temperature for score in scores]
    alive = sorted(range(len(scores)), key=lambda token: -scores[token])
    if sampling.top_k:
        alive = alive[: sampling.top_k]
    weights = {token: math.exp(scores[token] - scores[alive[0]]) for token in alive}
    total, mass, nucleus = sum(weights.values()), 0.0, []
    for token in alive:
        nucleus.append(token)
        mass += weights[token]
        if mass >= sampling.top_p * total:
            break
    best = max(weights[token] for token in nucleus)
    nucleus = [token for token in nucleus if weights[token] >= sampling.min_p * best]
    noise = gumbel_row(sampling.seed, sampling.choice, len(output), len(scores))
    return max(nucleus, key=lambda token: scores[token] + float(noise[token]))


@given(
    sampling=samplings,
    prompt=st.lists(st.integers(0, 19), max_size=6),
    output=st.lists(st.integers(0, 19), max_size=6),
    draft=st.lists(st.integers(0, 19), max_size=4),
    seed=st.integers(0, 1000),
)
@settings(max_examples=300, deadline=None)
def test_rows_see_their_own_history_with_drafted_predecessors(
    sampling, prompt, output, draft, seed
):
    rows = logits(len(draft) + 1, seed, 20)
    sampler = Sampler(sampling, prompt, 20)
    sampler.accept(output)
    expected = []
    for index, row in enumerate(rows):
        expected.append(naive_token(row, sampling, prompt, output + draft[:index]))
        if index == len(draft) or expected[-1] != draft[index]:
            break
    assert sampler.match(rows, draft) == expected


def test_ties_go_to_the_lowest_id():
    row = np.zeros((1, 9), dtype=np.float32)
    row[0, [4, 7]] = 1.0
    assert Sampler(Sampling(), [], 9).match(row, []) == [4]


def test_sampling_follows_the_model_s_distribution():
    row = np.log(np.array([0.5, 0.3, 0.15, 0.05], dtype=np.float32))
    drawn = [choose_row(row, 1.0, 9, 0, index) for index in range(4000)]
    shares = np.bincount(drawn, minlength=4) / 4000
    assert np.abs(shares - np.exp(row)).max() < 0.025


def test_a_row_of_nan_is_an_error_and_not_a_token():
    rows = np.full((1, 9), np.nan, dtype=np.float32)
    for sampling in (Sampling(), Sampling(temperature=1.0)):
        with pytest.raises(EngineError, match="no number"):
            Sampler(sampling, [], 9).match(rows, [])


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=-1),
        Sampling(temperature=math.nan),
        Sampling(top_p=0),
        Sampling(top_p=1.1),
        Sampling(top_k=-1),
        Sampling(min_p=2),
        Sampling(repetition_penalty=0),
        Sampling(presence_penalty=math.inf),
        Sampling(logit_bias={9: 1.0}),
        Sampling(logit_bias={-1: 1.0}),
    ],
)
def test_values_that_mean_nothing_are_refused(sampling):
    with pytest.raises(RequestError, match="out of range"):
        check_sampling(sampling, 9)


def test_log_probabilities_are_those_of_a_softmax():
    torch = pytest.importorskip("torch")
    row = logits(1, 3)[0]
    expected = torch.log_softmax(torch.from_numpy(row).double(), 0)
    score = logprobs_of(row, 17, 4)
    assert score.logprob == pytest.approx(expected[17].item(), abs=1e-9)
    values, ids = expected.topk(4)
    assert [other.token for other in score.top] == ids.tolist()
    assert [other.logprob for other in score.top] == pytest.approx(values.tolist(), abs=1e-9)
    assert logprobs_of(row, 17, 0).top == []


def test_top_choices_of_rows_are_those_of_a_sort():
    rows = logits(6, 4)
    ids, logprobs = top_choices(rows, 5)
    order = np.argsort(-rows, axis=1, kind="stable")[:, :5]
    assert (ids == order).all()
    exact = rows - np.log(np.exp(rows.astype(np.float64)).sum(axis=1, keepdims=True))
    assert np.abs(logprobs - np.take_along_axis(exact, order, axis=1)).max() < 1e-5


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 5, 2**64 - 1])
def test_the_kernels_choose_as_numpy_does(seed):
    loads, reason = cpu.available()
    if not loads:
        pytest.skip(f"the CPU kernels do not load here: {reason}")
    for index, row in enumerate(logits(40, 11)):
        expected = choose_row(row, 0.8, seed, 2, index)
        assert ChooseNatively()(row, 0.8, seed, 2, index) == expected
    masked = np.full(VOCAB, -np.inf, np.float32)
    masked[[4, 90]] = 1.0
    assert ChooseNatively()(masked, 0.8, seed, 0, 0) in (4, 90)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(temperature=0.8, seed=1),
        Sampling(temperature=0.8, seed=1, top_p=0.9, top_k=4),
        Sampling(temperature=0.8, seed=1, min_p=0.1),
        Sampling(repetition_penalty=1.2),
    ],
)
def test_a_drafted_end_of_a_constrained_text_is_accepted_where_nothing_may_follow(
    sampling: Sampling,
) -> None:
    rows = np.full((2, 50), -np.inf, np.float32)
    rows[0, 7] = 1.0
    assert Sampler(sampling, [1], 50).match(rows, [7])[0] == 7
