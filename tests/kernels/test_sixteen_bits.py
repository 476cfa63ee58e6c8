"""bf16 weights as integers of 13 bits in sixteen: little is rounded, and sums stay near."""

from __future__ import annotations

import numpy as np
import pytest
from atlasd_kernels.cpu import draft_chain
from atlasd_kernels.cpu.packing import BF16, SIXTEEN

from tests.kernels.conftest import ISAS
from tests.kernels.products import floats, kept, only_head, products
from tests.kernels.raw_weights import bits, trained

pytestmark = pytest.mark.skipif("avxvnni" not in ISAS, reason="needs AVX-VNNI")

GROUP = 64


@pytest.mark.parametrize("shape", [(64, 64), (77, 320), (300, 896), (40, 100)])
@pytest.mark.parametrize("scale", [1e-30, 0.05, 1e30])
def test_weights_come_back_and_the_smallest_rounded(shape: tuple[int, int], scale: float) -> None:
    random = np.random.default_rng(5)
    # every group has a scale of its own
    columns, k = shape
    spread = np.exp(random.normal(size=(columns, -(-k // GROUP)))).repeat(GROUP, axis=1)[:, :k]
    matrix = bits(random.normal(size=shape) * scale * spread)
    number, found = kept(matrix, SIXTEEN)
    assert number == SIXTEEN
    wanted = floats(matrix)
    rounded = 0
    for first in range(0, k, GROUP):
        mine = wanted[:, first : first + GROUP].astype(np.float64)
        _, exponents = np.frexp(np.abs(mine).max(axis=1, keepdims=True))
        largest = np.ldexp(1.0, exponents.astype(int) - 1)  # the power of two below
        step = largest * 2.0**-11
        nearest = np.round(mine / step) * step  # ties to even
        assert np.array_equal(found[:, first : first + GROUP].astype(np.float64), nearest)
        whole = np.abs(mine) >= largest / 16
        assert np.array_equal(nearest[whole], mine[whole])
        rounded += int(np.sum(nearest != mine))
    assert 0 < rounded < 0.15 * matrix.size


def test_a_column_that_would_lose_much_is_kept_as_it_is() -> None:
    """One weight of a group so large that the others are a few steps, which it is not."""
    for outlier, number in ((1.5, SIXTEEN), (4.0, BF16)):
        matrix = trained(np.random.default_rng(1), (64, 320))
        matrix[40, 7] = bits(np.array([outlier]))[0]
        kept_as, found = kept(matrix, SIXTEEN)
        lost = np.linalg.norm(found - floats(matrix), axis=1) / np.linalg.norm(found, axis=1)
        assert (kept_as or BF16) == number
        assert (lost[40] > 2.0**-12) if number == SIXTEEN else not lost.any()
        assert lost.max() <= 2.0**-10


def test_groups_of_denormals_are_kept_as_they_are_and_zeros_are_zeros() -> None:
    random = np.random.default_rng(1)
    matrix = random.integers(1, 128, (32, 64)).astype(np.uint16)
    number, found = kept(matrix, SIXTEEN)
    assert number != SIXTEEN
    assert np.array_equal(found.view(np.uint32), matrix.astype(np.uint32) << 16)
    matrix = trained(random, (32, 192))
    matrix[:, 64:128] = 0
    number, found = kept(matrix, SIXTEEN)
    assert number == SIXTEEN
    assert not found[:, 64:128].any()


def test_the_largest_sums_fit() -> None:
    """All weights and activations of a group as large as they can be, of one sign."""
    embedding = bits(np.full((64, 320), 1.9921875))
    found = products(embedding, bits(np.full(320, 3.0)), "avxvnni")
    assert np.allclose(found, 320 * 1.9921875 * 3, rtol=1e-4)


def test_a_reduced_head_has_the_sums_of_the_whole_one() -> None:
    embedding, norm = trained(np.random.default_rng(2), (200, 320)), bits(np.ones(320))
    some = np.arange(0, 200, 3, dtype=np.int32)
    whole, reduced = (
        draft_chain(only_head(embedding, norm, "avxvnni"), [3], 0, 0, 12, head_tokens=tokens)
        for tokens in (np.arange(200, dtype=np.int32), some)
    )
    assert set(reduced.tokens.tolist()) <= set(some.tolist())
    alone = products(embedding, norm, "avxvnni", 4)[3]
    assert reduced.tokens[0] == some[alone[some].argmax()]
    assert whole.tokens[0] == alone.argmax()
