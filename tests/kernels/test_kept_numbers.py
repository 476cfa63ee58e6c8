"""What holds for bf16 weights in whatever numbers an instruction set keeps them: what are no
numbers stays, sums stay near, and a row's bits are its own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
from atlasd_kernels.cpu.packing import FP16, SIXTEEN

from tests.kernels.conftest import ISAS
from tests.kernels.products import error, kept, only_head, products, rounded_products
from tests.kernels.raw_weights import bits, trained, weights


class Kept(NamedTuple):
    isa: str
    plain: str
    """A set with the same cache that multiplies and adds in fp32."""
    number: int
    least: float
    """Error of a sum, relative to its size: at the median more, or nothing was rounded."""
    share: float
    """The most of the error that activations in bf16 have, as PyTorch and llama.cpp do it."""
    near: float
    """Error of a sum at most, whatever the size of weights and activations."""


KEPT = [
    Kept("avx512fp16", "avx512", FP16, 1e-4, 0.7, 0.01),
    Kept("avxvnni", "avx2", SIXTEEN, 1e-5, 0.5, 0.002),
]


@pytest.fixture(params=KEPT, ids=lambda one: one.isa)
def one(request: pytest.FixtureRequest) -> Kept:
    found: Kept = request.param
    if found.isa not in ISAS:
        pytest.skip(f"needs {found.isa}")
    return found


@pytest.mark.parametrize("odd", [0x7F80, 0xFFC1])
def test_weights_that_are_no_numbers_are_kept_as_they_are(one: Kept, odd: int) -> None:
    matrix = trained(np.random.default_rng(1), (64, 320))
    matrix[3, 3] = odd
    number, found = kept(matrix, one.number)
    assert number != one.number
    assert np.array_equal(found.view(np.uint32), matrix.astype(np.uint32) << 16)


@pytest.mark.parametrize("hidden", [64, 320, 4864])
def test_sums_lose_less_than_activations_in_bf16(one: Kept, hidden: int) -> None:
    random = np.random.default_rng(2)
    embedding = trained(random, (320, hidden))
    norm = bits(np.exp(random.normal(size=hidden)))
    wanted, coarse = rounded_products(embedding, norm)
    found, plain = (error(products(embedding, norm, isa), wanted) for isa in (one.isa, one.plain))
    assert plain.max() < 1e-5
    assert one.least < np.median(found) < one.share * np.median(error(coarse, wanted))
    assert found.max() < 0.003


@pytest.mark.parametrize("kind", ["trained", "zeros", "panels apart", "large", "small"])
@pytest.mark.parametrize("activations", [1e-20, 1.0, 3e4, 1e20])
def test_sums_stay_near_whatever_their_size(one: Kept, kind: str, activations: float) -> None:
    embedding, norm = weights(kind, (333, 320)), bits(np.full(320, activations, np.float32))
    found, plain = (products(embedding, norm, isa) for isa in (one.isa, one.plain))
    assert np.array_equal(np.isfinite(found), np.isfinite(plain))
    whole = np.isfinite(plain).all(axis=0) & (np.abs(plain) > 1e-35).all(axis=0)
    assert not whole.any() or error(found, plain)[whole].max() < one.near


def test_rows_of_zeros_infinities_and_no_numbers_are_what_they_would_be(one: Kept) -> None:
    embedding = trained(np.random.default_rng(2), (64, 320))
    embedding[1] = 0
    norm = bits(np.ones(320))
    found = products(embedding, norm, one.isa, 3)
    assert not found[1].any()
    assert np.abs(found[[0, 2]]).min(axis=0)[2:].all()
    for odd in (0x7F80, 0x7FC1):
        norm[7] = odd
        assert not np.isfinite(products(embedding, norm, one.isa, 3)[2, 2:]).any()


@pytest.mark.parametrize("hidden", [64, 320, 4864])
def test_rows_have_the_same_bits_alone_and_in_blocks(one: Kept, hidden: int) -> None:
    embedding = trained(np.random.default_rng(2), (200, hidden))
    decoder = only_head(embedding, bits(np.ones(hidden)), one.isa)
    rows = np.arange(150, dtype=np.int32)
    first = rows[:1]
    alone = [decoder.forward(first + i, first, first, first).copy() for i in range(150)]
    for count in [*range(2, 35), 63, 64, 65, 100, 150]:
        some = rows[:count]
        found = decoder.forward(some, some * 0, some % 64, some)
        assert np.array_equal(found.view(np.uint32), np.concatenate(alone[:count]).view(np.uint32))
