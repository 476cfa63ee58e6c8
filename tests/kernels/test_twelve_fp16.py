"""bf16 weights as fp16 numbers in twelve bits: little is rounded, and sums stay near."""

from __future__ import annotations

import numpy as np
import pytest
from atlasd_kernels.cpu.library import native
from atlasd_kernels.cpu.packing import (
    BF16,
    FP16,
    TWELVE,
    Part,
    Piece,
    pack_part,
    part_bytes,
    zeroed,
)

from tests.kernels.conftest import ISAS
from tests.kernels.products import error, floats, only_head, products, rounded_products
from tests.kernels.raw_weights import bits, trained, weights

pytestmark = pytest.mark.skipif("avx512fp16" not in ISAS, reason="needs AVX512-FP16")


def kept(matrix: np.ndarray) -> tuple[int, np.ndarray]:
    """In which format a matrix is kept, and its weights as float32 [columns, k]."""
    columns, k = matrix.shape
    part = Part((Piece("w"),), columns, k, "bf16")
    room = part_bytes(part, 2)
    data = zeroed(room + 4096)
    length, number = pack_part(part, room, {"w": matrix}, data, 2, FP16)
    assert length <= room
    out = np.zeros((columns, k), np.float32)
    for column in range(columns):
        to = out[column].ctypes.data
        native().unpack_column(number or BF16, data.ctypes.data, k, column, to)
    return number, out


@pytest.mark.parametrize("shape", [(64, 64), (77, 320), (300, 896), (40, 100)])
@pytest.mark.parametrize("scale", [1e-30, 0.05, 1e30])
def test_weights_come_back_and_the_smallest_rounded(shape: tuple[int, int], scale: float) -> None:
    random = np.random.default_rng(5)
    # every column has a scale of its own
    spread = np.exp(random.normal(size=(shape[0], 1)))
    matrix = bits(random.normal(size=shape) * scale * spread)
    number, found = kept(matrix)
    assert number == FP16
    wanted = floats(matrix)
    _, exponents = np.frexp(np.abs(wanted).max(axis=1, keepdims=True))
    largest = np.ldexp(1.0, exponents.astype(int) - 1)  # the power of two below
    whole = np.abs(wanted) >= largest * 2.0**-14
    assert np.array_equal(found[whole], wanted[whole])
    step = largest * 2.0**-21
    nearest = np.round(wanted.astype(np.float64) / step) * step  # ties to even
    assert np.array_equal(found.astype(np.float64), np.where(whole, wanted, nearest))


def test_the_sign_of_zero_is_kept() -> None:
    matrix = trained(np.random.default_rng(1), (32, 64))
    matrix[:, ::3] = 0x8000
    matrix[:, 1::3] = 0
    number, found = kept(matrix)
    assert number == FP16
    assert np.array_equal(found.view(np.uint32), matrix.astype(np.uint32) << 16)


@pytest.mark.parametrize("many", [5, 6])
def test_columns_with_many_small_weights_are_kept_whole(many: int) -> None:
    """At most one in 64 may be rounded: 5 of 320."""
    matrix = bits(1.0 + np.random.default_rng(1).random((64, 320)))
    matrix[40, 7 : 7 + many] = bits(np.array([2.0**-15 * 1.0078125]))[0]
    number, found = kept(matrix)
    assert number == (FP16 if many == 5 else TWELVE)
    if number == TWELVE:
        assert np.array_equal(found, floats(matrix))


@pytest.mark.parametrize("odd", [0x7F80, 0xFFC1])
def test_weights_that_are_no_numbers_are_kept_as_they_are(odd: int) -> None:
    matrix = trained(np.random.default_rng(1), (64, 320))
    matrix[3, 3] = odd
    number, found = kept(matrix)
    assert number != FP16
    assert np.array_equal(found.view(np.uint32), matrix.astype(np.uint32) << 16)


def test_denormals_count_as_rounded() -> None:
    matrix = np.random.default_rng(1).integers(1, 128, (32, 64)).astype(np.uint16)
    assert kept(matrix)[0] != FP16


@pytest.mark.parametrize("hidden", [64, 320, 4864])
def test_sums_in_fp16_lose_less_than_activations_in_bf16(hidden: int) -> None:
    """A little more than half as much. PyTorch and llama.cpp multiply activations in bf16."""
    random = np.random.default_rng(2)
    embedding = trained(random, (320, hidden))
    norm = bits(np.exp(random.normal(size=hidden)))
    wanted, coarse = rounded_products(embedding, norm)
    found, plain = (products(embedding, norm, isa) for isa in ("avx512fp16", "avx512"))
    assert error(plain, wanted).max() < 1e-5
    assert 1e-4 < np.median(error(found, wanted)) < 0.7 * np.median(error(coarse, wanted))
    assert error(found, wanted).max() < 0.003


@pytest.mark.parametrize("kind", ["trained", "zeros", "panels apart", "large", "small"])
@pytest.mark.parametrize("activations", [1e-20, 1.0, 3e4, 1e20])
def test_sums_stay_near_whatever_their_size(kind: str, activations: float) -> None:
    """Weights and activations are moved to where fp16 has numbers, and back."""
    embedding, norm = weights(kind, (333, 320)), bits(np.full(320, activations, np.float32))
    fp16, fp32 = (products(embedding, norm, isa) for isa in ("avx512fp16", "avx512"))
    assert np.array_equal(np.isfinite(fp16), np.isfinite(fp32))
    whole = np.isfinite(fp32).all(axis=0) & (np.abs(fp32) > 1e-35).all(axis=0)
    assert not whole.any() or error(fp16, fp32)[whole].max() < 0.01


def test_rows_of_zeros_and_infinities_are_what_they_would_be() -> None:
    embedding = trained(np.random.default_rng(2), (64, 320))
    embedding[1] = 0
    norm = bits(np.ones(320))
    found = products(embedding, norm, "avx512fp16", 3)
    assert not found[1].any()
    assert np.abs(found[[0, 2]]).min(axis=0)[2:].all()
    norm[7] = 0x7F80
    assert not np.isfinite(products(embedding, norm, "avx512fp16", 3)[2, 2:]).any()


@pytest.mark.parametrize("hidden", [64, 320, 4864])
def test_rows_have_the_same_bits_alone_and_in_blocks(hidden: int) -> None:
    """Up to 16 rows are a block; more share what the first of several decodes."""
    embedding = trained(np.random.default_rng(2), (200, hidden))
    decoder = only_head(embedding, bits(np.ones(hidden)), "avx512fp16")
    rows = np.arange(150, dtype=np.int32)
    first = rows[:1]
    alone = [decoder.forward(first + i, first, first, first).copy() for i in range(150)]
    for count in [*range(2, 35), 63, 64, 65, 100, 150]:
        some = rows[:count]
        found = decoder.forward(some, some * 0, some % 64, some)
        assert np.array_equal(found.view(np.uint32), np.concatenate(alone[:count]).view(np.uint32))
