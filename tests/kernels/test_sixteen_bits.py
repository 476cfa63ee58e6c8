"""bf16 weights as integers of 13 bits in sixteen: little is rounded, and sums stay near."""

from __future__ import annotations

import numpy as np
import pytest
from atlasd_kernels.cpu import draft_chain
from atlasd_kernels.cpu.library import native
from atlasd_kernels.cpu.packing import BF16, SIXTEEN, Part, Piece, pack_part, part_bytes, zeroed

from tests.kernels.conftest import ISAS
from tests.kernels.products import error, floats, only_head, products, rounded_products
from tests.kernels.raw_weights import bits, trained, weights

pytestmark = pytest.mark.skipif("avxvnni" not in ISAS, reason="needs AVX-VNNI")

GROUP = 64


def kept(matrix: np.ndarray) -> tuple[int, np.ndarray]:
    """In which format a matrix is kept, and its weights as float32 [columns, k]."""
    columns, k = matrix.shape
    part = Part((Piece("w"),), columns, k, "bf16")
    room = part_bytes(part, 2)
    data = zeroed(room + room // 32 + 4096)
    length, number = pack_part(part, room, {"w": matrix}, data, 2, SIXTEEN)
    assert length <= room + room // 32
    out = np.zeros((columns, k), np.float32)
    for column in range(columns):
        to = out[column].ctypes.data
        native().unpack_column(number or BF16, data.ctypes.data, k, column, to)
    return number, out


@pytest.mark.parametrize("shape", [(64, 64), (77, 320), (300, 896), (40, 100)])
@pytest.mark.parametrize("scale", [1e-30, 0.05, 1e30])
def test_weights_come_back_and_the_smallest_rounded(shape: tuple[int, int], scale: float) -> None:
    random = np.random.default_rng(5)
    # every group has a scale of its own
    columns, k = shape
    spread = np.exp(random.normal(size=(columns, -(-k // GROUP)))).repeat(GROUP, axis=1)[:, :k]
    matrix = bits(random.normal(size=shape) * scale * spread)
    number, found = kept(matrix)
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
        kept_as, found = kept(matrix)
        lost = np.linalg.norm(found - floats(matrix), axis=1) / np.linalg.norm(found, axis=1)
        assert (kept_as or BF16) == number
        assert (lost[40] > 2.0**-12) if number == SIXTEEN else not lost.any()
        assert lost.max() <= 2.0**-10


@pytest.mark.parametrize("odd", [0x7F80, 0xFFC1])
def test_weights_that_are_no_numbers_are_kept_as_they_are(odd: int) -> None:
    matrix = trained(np.random.default_rng(1), (64, 320))
    matrix[3, 3] = odd
    number, found = kept(matrix)
    assert number != SIXTEEN
    assert np.array_equal(found.view(np.uint32), matrix.astype(np.uint32) << 16)


def test_groups_of_denormals_are_kept_as_they_are_and_zeros_are_zeros() -> None:
    random = np.random.default_rng(1)
    matrix = random.integers(1, 128, (32, 64)).astype(np.uint16)
    number, found = kept(matrix)
    assert number != SIXTEEN
    assert np.array_equal(found.view(np.uint32), matrix.astype(np.uint32) << 16)
    matrix = trained(random, (32, 192))
    matrix[:, 64:128] = 0
    number, found = kept(matrix)
    assert number == SIXTEEN
    assert not found[:, 64:128].any()


@pytest.mark.parametrize("hidden", [64, 320, 4864])
def test_sums_lose_less_than_half_of_what_activations_in_bf16_do(hidden: int) -> None:
    random = np.random.default_rng(2)
    embedding = trained(random, (320, hidden))
    norm = bits(np.exp(random.normal(size=hidden)))
    wanted, coarse = rounded_products(embedding, norm)
    mine, theirs = error(products(embedding, norm, "avxvnni"), wanted), error(coarse, wanted)
    assert 1e-5 < np.median(mine) < 0.5 * np.median(theirs)
    assert mine.max() < 0.003


@pytest.mark.parametrize("kind", ["trained", "zeros", "panels apart", "large", "small"])
@pytest.mark.parametrize("activations", [1e-20, 1.0, 3e4, 1e20])
def test_sums_stay_near_whatever_their_size(kind: str, activations: float) -> None:
    embedding, norm = weights(kind, (333, 320)), bits(np.full(320, activations, np.float32))
    short, fp32 = (products(embedding, norm, isa) for isa in ("avxvnni", "avx2"))
    assert np.array_equal(np.isfinite(short), np.isfinite(fp32))
    whole = np.isfinite(fp32).all(axis=0) & (np.abs(fp32) > 1e-35).all(axis=0)
    assert not whole.any() or error(short, fp32)[whole].max() < 0.002


def test_the_largest_sums_fit() -> None:
    """All weights and activations of a group as large as they can be, of one sign."""
    embedding = bits(np.full((64, 320), 1.9921875))
    found = products(embedding, bits(np.full(320, 3.0)), "avxvnni")
    assert np.allclose(found, 320 * 1.9921875 * 3, rtol=1e-4)


def test_rows_of_zeros_infinities_and_no_numbers_are_what_they_would_be() -> None:
    embedding = trained(np.random.default_rng(2), (64, 320))
    embedding[1] = 0
    norm = bits(np.ones(320))
    found = products(embedding, norm, "avxvnni", 3)
    assert not found[1].any()
    assert np.abs(found[[0, 2]]).min(axis=0)[2:].all()
    for odd in (0x7F80, 0x7FC1):
        norm[7] = odd
        assert not np.isfinite(products(embedding, norm, "avxvnni", 3)[2, 2:]).any()


@pytest.mark.parametrize("hidden", [64, 320, 4864])
def test_rows_have_the_same_bits_alone_and_in_blocks(hidden: int) -> None:
    embedding = trained(np.random.default_rng(2), (200, hidden))
    decoder = only_head(embedding, bits(np.ones(hidden)), "avxvnni")
    rows = np.arange(150, dtype=np.int32)
    first = rows[:1]
    alone = [decoder.forward(first + i, first, first, first).copy() for i in range(150)]
    for count in [*range(2, 20), 63, 64, 65, 100, 150]:
        some = rows[:count]
        found = decoder.forward(some, some * 0, some % 64, some)
        assert np.array_equal(found.view(np.uint32), np.concatenate(alone[:count]).view(np.uint32))


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
