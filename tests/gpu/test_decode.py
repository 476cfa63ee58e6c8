"""What the kernels' PTX makes of every byte of packed weights, by a model of its instructions.

Triton's interpreter takes no PTX. The model is written from NVIDIA's PTX manual; it knows the six
instructions that are used and insists that every product is exact.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
import pytest
import torch

pytest.importorskip("triton")

from atlasd_kernels.gpu import decode
from atlasd_kernels.gpu.formats import scale_bytes

UInt32 = npt.NDArray[np.uint32]
EVERY_BYTE = np.arange(256, dtype=np.uint32)


def prmt(a: UInt32, b: UInt32, selector: UInt32) -> UInt32:
    both = [*((a >> (8 * n)) & 255 for n in range(4)), *((b >> (8 * n)) & 255 for n in range(4))]
    chosen = int(selector.flat[0])
    assert not chosen & 0x8888, "signs are not modelled"
    parts = [both[(chosen >> (4 * n)) & 7] << np.uint32(8 * n) for n in range(4)]
    return parts[0] | parts[1] | parts[2] | parts[3]


def lop3(a: UInt32, b: UInt32, c: UInt32, table: UInt32) -> UInt32:
    out = a & 0
    for row in range(8):
        if (int(table.flat[0]) >> row) & 1:
            term = a if row & 4 else ~a
            term = term & (b if row & 2 else ~b)
            out = out | (term & (c if row & 1 else ~c))
    return out


def halves(words: UInt32) -> npt.NDArray[np.float64]:
    """The two bf16 numbers of each word, low half first: [words, 2]."""
    both = np.stack([words << 16, words & np.uint32(0xFFFF0000)], -1)
    return both.view(np.float32).astype(np.float64)


def fma(a: UInt32, b: UInt32, c: UInt32) -> UInt32:
    exact = halves(a) * halves(b) + halves(c)
    bits = exact.astype(np.float32).view(np.uint32)
    kept = bits & np.uint32(0xFFFF0000)
    assert np.array_equal(kept.view(np.float32).astype(np.float64), exact), "rounded"
    return kept[..., 1] | (kept[..., 0] >> np.uint32(16))


INSTRUCTIONS = {
    "mov.b32": lambda a: a,
    "and.b32": lambda a, b: a & b,
    "shl.b32": lambda a, b: a << b,
    "shr.b32": lambda a, b: a >> b,
    "prmt.b32": prmt,
    "lop3.b32": lop3,
    "fma.rn.bf16x2": fma,
}


def run(ptx: str, outputs: int, *inputs: UInt32) -> list[UInt32]:
    """Execute a block of PTX on words; its outputs."""
    held = {f"${outputs + n}": words for n, words in enumerate(inputs)}
    for line in ptx.strip("{} \n").split(";"):
        if not line.strip() or line.strip().startswith(".reg"):
            continue
        found = re.fullmatch(r"\s*([\w.]+) ([$\w]+), (.*)", line.replace("\n", ""))
        assert found, line
        name, target, given = found.groups()
        values = [
            held[x] if x in held else np.full_like(inputs[0], int(x, 0)) for x in given.split(", ")
        ]
        held[target] = INSTRUCTIONS[name](*values)
    return [held[f"${n}"] for n in range(outputs)]


def words(byte: UInt32, place: int) -> UInt32:
    """Words with this byte at a place and others elsewhere."""
    rest = np.random.default_rng(place).integers(0, 1 << 32, len(byte), dtype=np.uint32)
    shift = np.uint32(8 * place)
    return (rest & ~(np.uint32(255) << shift)) | (byte << shift)


def column(outputs: list[UInt32], place: int) -> npt.NDArray[np.float64]:
    """Numbers of one of four columns, in two words of two."""
    return halves(outputs[place // 2])[:, place % 2]


@pytest.mark.parametrize("place", range(4))
def test_fp8_is_what_torch_says(place: int) -> None:
    every = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).double().numpy()
    got = column(run(decode.FP8.value, 2, words(EVERY_BYTE, place)), place)
    number = ~np.isnan(every)
    assert number.sum() == 254
    assert np.array_equal(got[number], every[number])


@pytest.mark.parametrize("place", range(4))
def test_int8_is_the_byte_less_128(place: int) -> None:
    got = column(run(decode.INT8.value, 2, words(EVERY_BYTE, place)), place)
    assert np.array_equal(got, EVERY_BYTE.astype(np.float64) - 128)


@pytest.mark.parametrize("place", range(4))
def test_int4_is_the_nibble_less_8(place: int) -> None:
    outputs = run(decode.INT4.value, 4, words(EVERY_BYTE, place))
    assert np.array_equal(column(outputs[:2], place), (EVERY_BYTE & 15).astype(np.float64) - 8)
    assert np.array_equal(column(outputs[2:], place), (EVERY_BYTE >> 4).astype(np.float64) - 8)


def e2m1(code: UInt32) -> npt.NDArray[np.float64]:
    """OCP's definition: sign, two bits of exponent with bias 1, one of fraction."""
    exponent, fraction = (code >> 1) & 3, (code & 1).astype(np.float64)
    normal = (1 + fraction / 2) * 2.0 ** (exponent.astype(np.float64) - 1)
    return np.where(code & 8, -1.0, 1.0) * np.where(exponent == 0, fraction / 2, normal)


@pytest.mark.parametrize("place", range(4))
def test_nvfp4_is_the_code_times_the_scale_in_256ths(place: int) -> None:
    scales = torch.arange(127, dtype=torch.uint8).view(torch.float8_e4m3fn)
    bits = (scale_bytes(scales).numpy().astype(np.uint32) << 4) + decode.SCALE.value
    values = scales.double().numpy()
    for low, high in zip(range(1, 127), reversed(range(1, 127)), strict=True):
        pairs = [np.full(256, bits[n] * 0x10001, np.uint32) for n in (low, low, high, high)]
        outputs = run(decode.NVFP4.value, 4, words(EVERY_BYTE, place), *pairs)
        expected = e2m1(EVERY_BYTE & 15) * values[low] / 256
        assert np.array_equal(column(outputs[:2], place), expected)
        expected = e2m1(EVERY_BYTE >> 4) * values[high] / 256
        assert np.array_equal(column(outputs[2:], place), expected)


def test_nothing_times_no_scale_is_nothing() -> None:
    pairs = [np.full(1, decode.SCALE.value * 0x10001, np.uint32)] * 4
    for output in run(decode.NVFP4.value, 4, np.zeros(1, np.uint32), *pairs):
        assert (halves(output) == 0).all()
