"""The kernels that work row by row: embedding, residual, QKV's end, choosing, accepting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from atlasd_kernels.gpu import choose, residual, rope
from atlasd_kernels.gpu.noise import VALUES, gumbel_table
from atlasd_kernels.noise import gumbel_row

from tests.gpu.values import accept_values, choice_values


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def table() -> torch.Tensor:
    return gumbel_table("cpu")


@pytest.mark.parametrize("width", [64, 300, 512])
def test_the_stream_starts_and_grows_in_order(width: int) -> None:
    tokens = torch.tensor([3, 0, 9, 3], dtype=torch.int32)
    embedding, gain = random(10, width), random(width, seed=1)
    hidden, scaled = torch.empty(4, width), torch.empty(4, width)
    squares = torch.empty(4, residual.blocks(width))
    residual.embed(tokens, embedding, hidden, gain, scaled, squares, count=4)
    expected = residual.reference_embed(embedding, tokens)
    assert torch.equal(hidden, expected)
    partial = random(3, 4, width, seed=2)
    residual.add(partial, hidden, gain, scaled, squares, count=4, splits=3)
    expected = residual.reference_add(expected, partial)
    assert torch.equal(hidden, expected)
    gained, sums = residual.reference_norm(expected, gain)
    assert torch.equal(scaled, gained)
    torch.testing.assert_close(squares, sums)


@pytest.mark.parametrize(("bias", "norm", "dim"), [(True, False, 32), (False, True, 48)])
def test_qkv_ends_in_queries_and_a_written_cache(bias: bool, norm: bool, dim: int) -> None:
    heads, kv_heads, rows, width, splits = 6, 2, 5, 96, 2
    columns = (heads + 2 * kv_heads) * dim
    partial, squares = random(splits, rows, columns), random(rows, 3, seed=1).abs() * 30
    biases = random(columns, seed=2) if bias else None
    gains = (random(dim, seed=3), random(dim, seed=4)) if norm else None
    cos, sin = random(16, dim // 2, seed=5), random(16, dim // 2, seed=6)
    slots = torch.tensor([1, 1, 0, 2, -1], dtype=torch.int32)
    positions = torch.tensor([4, 5, 0, 15, -1], dtype=torch.int32)
    query = torch.zeros(rows, heads, dim)
    keys, values = torch.zeros(3, kv_heads, 16, dim), torch.zeros(3, kv_heads, 16, dim)
    rope.finish_qkv(
        partial, squares, biases, gains, cos, sin, slots, positions, query, keys, values,
        count=rows, splits=splits, width=width, eps=1e-6,
    )  # fmt: skip
    states = partial.sum(0) * torch.rsqrt(squares.sum(1) / width + 1e-6)[:, None]
    states = states if biases is None else states + biases
    at = positions.clamp(min=0).long()
    q, k, v = rope.reference(
        states.view(rows, -1, dim), cos[at], sin[at], gains, 1e-6, heads, kv_heads
    )
    torch.testing.assert_close(query, q, atol=1e-5, rtol=1e-5)
    written = torch.zeros_like(keys)
    written[slots[:4].long(), :, positions[:4].long()] = k[:4]
    torch.testing.assert_close(keys, written, atol=1e-5, rtol=1e-5)
    assert torch.count_nonzero(values) == 4 * kv_heads * dim
    torch.testing.assert_close(values[1, :, 5], v[1])


def noise_of(rows: list[tuple[int, int, int]]) -> torch.Tensor:
    """int32 [4, rows] of (seed, choice, output index)."""
    columns = [(seed & 0xFFFFFFFF, seed >> 32, choice, index) for seed, choice, index in rows]
    return torch.from_numpy(np.array(columns, np.uint32).T.copy().view(np.int32))


def out_for(rows: int) -> choose.Choices:
    return choose.Choices(
        torch.empty(rows, dtype=torch.int32),
        torch.empty(rows, choose.TOP, dtype=torch.int32),
        torch.empty(rows, choose.TOP),
    )


def test_tokens_are_those_of_the_sampler_bit_for_bit() -> None:
    choice_values(5000, "cpu")


def test_the_likeliest_are_those_of_the_reference(table: torch.Tensor) -> None:
    logits, out = random(2, 300), out_for(2)
    chooser = choose.Chooser(2, 300, table)
    chooser.choose(logits, torch.zeros(2), noise_of([(0, 0, 0)] * 2), out, count=2)
    mine, near = choose.reference_top(logits)
    assert torch.equal(mine, out.top_ids)
    torch.testing.assert_close(near, out.top_logprobs, atol=1e-5, rtol=1e-5)


def test_noise_is_the_engines_bit_for_bit(table: torch.Tensor) -> None:
    # Equal logits: the choice is the largest noise, and its neighbours decide the top of it.
    out, vocabulary = out_for(8), 4099
    keys = [(seed * 0x1234567890AB, seed % 3, seed * 17) for seed in range(8)]
    logits, temperatures = torch.zeros(8, vocabulary), torch.ones(8)
    chooser = choose.Chooser(8, vocabulary, table)
    chooser.choose(logits, temperatures, noise_of(keys), out, count=8)
    for row, key in enumerate(keys):
        assert int(out.tokens[row]) == int(gumbel_row(*key, vocabulary).argmax())


def test_the_table_holds_every_value_the_noise_can_take(table: torch.Tensor) -> None:
    assert len(table) == VALUES
    assert torch.isfinite(table).all()
    assert (table[1:] >= table[:-1]).all()
    assert -2.83 < float(table[0]) < float(table[-1]) < 16.65


def test_what_is_no_number_is_told(table: torch.Tensor) -> None:
    logits, out = random(2, 300), out_for(2)
    logits[1, 7] = torch.nan
    choose.Chooser(2, 300, table).choose(
        logits, torch.zeros(2), noise_of([(0, 0, 0)] * 2), out, count=2
    )
    assert out.tokens[1] == -1
    assert out.tokens[0] == logits[0].argmax()


def test_a_draft_is_accepted_up_to_the_first_that_differs() -> None:
    accept_values("cpu")
