"""Quantised formats against naive packers and the bounds that each format promises."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from atlasd_kernels.gpu.formats import (
    E2M1,
    FORMATS,
    NVFP4_SHIFT,
    dequantise,
    interleave,
    pack_nibbles,
    quantise,
    scale_bytes,
    scales_of,
    unpack_nibbles,
)


def weights(rows: int = 24, columns: int = 300, seed: int = 0) -> torch.Tensor:
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.02
    values[3] = 0
    values[5, 7] = 0.5
    return values


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("fp32", 0.0),
        ("bf16", 0.003),
        ("int8", 0.02),
        ("fp8", 0.04),
        ("int4", 0.13),
        ("nvfp4", 0.11),
    ],
)
def test_what_comes_back_is_near_what_went_in(kind, most) -> None:
    values = weights()
    values[5, 7] = 0.05
    back = dequantise(quantise(values, kind))
    assert back.shape == values.shape
    assert ((back - values).norm() / values.norm()).item() <= most
    assert (back[3] == 0).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_kernel_values_are_exact_in_bf16(kind) -> None:
    if kind == "fp32":
        pytest.skip("computed in float32")
    packed = quantise(weights(), kind)
    values = dequantise(replace(packed, scales=torch.ones_like(packed.scales)))
    if kind == "int4":
        # The group's scale goes on the sums, so only the codes are multiplied.
        values = (unpack_nibbles(packed.data).float() - 8)[:, :300]
    assert torch.equal(values, values.bfloat16().float())


def test_nibbles_lie_where_the_kernel_looks_for_them() -> None:
    codes = torch.randint(0, 16, (5, 512), generator=torch.Generator().manual_seed(0)).byte()
    packed = pack_nibbles(codes)
    for row in range(5):
        for column in range(512):
            block, inside = divmod(column, 256)
            byte = int(packed[row, block * 128 + inside % 128])
            assert (byte >> 4 if inside >= 128 else byte & 15) == codes[row, column]
    assert torch.equal(unpack_nibbles(packed), codes)


def test_int4_against_a_naive_decoder() -> None:
    packed = quantise(weights(), "int4")
    codes, back = unpack_nibbles(packed.data), dequantise(packed)
    for row in range(0, 24, 5):
        for column in range(0, 300, 7):
            scale = float(packed.groups[column // 128, row])
            assert float(back[row, column]) == pytest.approx((int(codes[row, column]) - 8) * scale)


def test_nvfp4_against_a_naive_decoder() -> None:
    packed = quantise(weights(), "nvfp4")
    codes, back = unpack_nibbles(packed.data), dequantise(packed)
    for row in range(0, 24, 5):
        for column in range(0, 300, 7):
            bits = int(packed.groups[row, column // 16])
            scale = (1 + (bits & 7) / 8) * 2.0 ** ((bits >> 3) - 10) if bits else 0.0
            code = int(codes[row, column])
            value = (-1 if code & 8 else 1) * E2M1[code & 7] * scale
            expected = value * float(packed.scales[row]) / NVFP4_SHIFT
            assert float(back[row, column]) == pytest.approx(expected, rel=1e-6)


def test_scales_are_those_of_e4m3() -> None:
    given = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn)
    data = scale_bytes(given)
    assert torch.equal(scales_of(data), given.float())
    assert len(data.unique()) == 127


@pytest.mark.parametrize("value", [0.0, 0.25, 0.26, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0, 5.1, 6.0])
def test_e2m1_rounds_to_the_nearest_and_ties_to_even(value) -> None:
    # A group whose largest value is 6 times a power of two keeps its scale exactly.
    values = torch.zeros(1, 256)
    values[0, ::16] = 6.0
    values[0, 1] = -value
    packed = quantise(values, "nvfp4")
    got = -float(dequantise(packed)[0, 1])
    near = min(E2M1, key=lambda v: (abs(v - value), E2M1.index(v) % 2))
    assert got == pytest.approx(near)


def test_four_bit_error_is_least_squares_over_clips() -> None:
    values = torch.randn(8, 256, generator=torch.Generator().manual_seed(3))
    back = dequantise(quantise(values, "int4"))
    scale = (values.view(8, 2, 128).abs().amax(2) / 7).half().float()[:, :, None]
    plain = (values.view(8, 2, 128) / scale).round().clamp(-8, 7) * scale
    assert (back - values).norm() <= (plain.view(8, 256) - values).norm()


def test_gate_and_up_take_turns() -> None:
    gate, up = torch.zeros(3, 4), torch.ones(3, 4)
    assert interleave(gate, up)[:, 0].tolist() == [0, 1, 0, 1, 0, 1]


def test_a_matrix_of_zeros_stays_one() -> None:
    for kind in FORMATS:
        assert (dequantise(quantise(torch.zeros(4, 256), kind)) == 0).all()


@pytest.mark.parametrize("kind", ["int8", "int4", "nvfp4"])
def test_quantising_in_parts_changes_nothing(kind, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quantise(weights(), kind)
    monkeypatch.setattr("atlasd_kernels.gpu.formats.ROWS_AT_ONCE", 7)
    parts = quantise(weights(), kind)
    assert torch.equal(whole.data, parts.data)
    assert torch.equal(whole.groups, parts.groups)
    assert torch.equal(whole.scales, parts.scales)
