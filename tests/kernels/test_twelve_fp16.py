"""bf16 weights as fp16 numbers in twelve bits: little is rounded, and sums stay near."""

from __future__ import annotations

import numpy as np
import pytest
from atlasd_kernels.cpu.packing import FP16, TWELVE

from tests.kernels.conftest import ISAS
from tests.kernels.products import floats, kept
from tests.kernels.raw_weights import bits, trained

pytestmark = pytest.mark.skipif("avx512fp16" not in ISAS, reason="needs AVX512-FP16")


@pytest.mark.parametrize("shape", [(64, 64), (77, 320), (300, 896), (40, 100)])
@pytest.mark.parametrize("scale", [1e-30, 0.05, 1e30])
def test_weights_come_back_and_the_smallest_rounded(shape: tuple[int, int], scale: float) -> None:
    random = np.random.default_rng(5)
    # every column has a scale of its own
    spread = np.exp(random.normal(size=(shape[0], 1)))
    matrix = bits(random.normal(size=shape) * scale * spread)
    number, found = kept(matrix, FP16)
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
    number, found = kept(matrix, FP16)
    assert number == FP16
    assert np.array_equal(found.view(np.uint32), matrix.astype(np.uint32) << 16)


@pytest.mark.parametrize("many", [5, 6])
def test_columns_with_many_small_weights_are_kept_whole(many: int) -> None:
    """At most one in 64 may be rounded: 5 of 320."""
    matrix = bits(1.0 + np.random.default_rng(1).random((64, 320)))
    matrix[40, 7 : 7 + many] = bits(np.array([2.0**-15 * 1.0078125]))[0]
    number, found = kept(matrix, FP16)
    assert number == (FP16 if many == 5 else TWELVE)
    if number == TWELVE:
        assert np.array_equal(found, floats(matrix))


def test_denormals_count_as_rounded() -> None:
    matrix = np.random.default_rng(1).integers(1, 128, (32, 64)).astype(np.uint16)
    assert kept(matrix, FP16)[0] != FP16
