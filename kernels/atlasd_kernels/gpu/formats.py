"""Weight formats of the GPU kernels: quantising, packing, and the exact values that come back.

A packed matrix is [rows, columns] = [out, in], rows contiguous. What a kernel multiplies with are
the *codes* times the group scales, exactly representable in bf16; the channel scale is applied
once to the sum. So accumulation sees the same numbers in every kernel and on every device.

- ``int4``: symmetric, groups of 128 columns, fp16 scales.
- ``nvfp4``: e2m1 codes (0, .5, 1, 1.5, 2, 3, 4, 6), groups of 16 columns with e4m3 scales and one
  float32 scale per tensor. The values are NVIDIA's; how they lie is our own: the order of nibbles,
  and scales with five bits of exponent in place of a sign and four (see ``scale_bytes``).

Both lie in blocks of 256 columns, 128 bytes each: byte j holds column j in its low nibble and
column 128 + j in its high nibble, so that a kernel unpacks a byte tile into two tiles of
consecutive columns without moving anything between lanes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

Format = Literal["fp32", "bf16", "fp8", "int8", "int4", "nvfp4"]
FORMATS: tuple[Format, ...] = ("fp32", "bf16", "fp8", "int8", "int4", "nvfp4")
FOUR_BITS = ("int4", "nvfp4")

BITS: dict[str, float] = {
    "fp32": 32.0,
    "bf16": 16.0,
    "fp8": 8.0,
    "int8": 8.0,
    "int4": 4.125,
    "nvfp4": 4.5,
}
"""Bits per weight, group scales included."""

BLOCK = 256
INT4_GROUP = 128
NVFP4_GROUP = 16
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
E4M3_MOST = 448.0
NVFP4_SHIFT = 2.0**8
"""Kernels decode e2m1 times e4m3 as its 2**-8th, which keeps within float32's exponents."""

ROWS_AT_ONCE = 4096
"""Rows that are quantised together: what is held beside a matrix is no larger than this part."""

Try = tuple[Tensor, Tensor, Tensor]
"""Codes, scales as they are stored, and the values that come back."""

_SCALE_BIAS = 10
_INT4_CLIPS = (1.0, 0.95, 0.9, 0.85, 0.8)
_NVFP4_TOPS = (6.0, 4.0)


@dataclass(frozen=True)
class PackedMatrix:
    """A weight matrix as a kernel reads it."""

    format: Format
    rows: int
    columns: int
    data: Tensor
    """fp32 or bf16 [rows, columns]; uint8 [rows, columns] (fp8: e4m3 bits; int8: value + 128);
    four bits: uint8 [rows, columns rounded up to 256, / 2]."""

    scales: Tensor
    """float32 [rows]: what the sum over the columns is multiplied with."""

    groups: Tensor
    """int4: fp16 [groups, rows]; nvfp4: uint8 [rows, groups], see ``scale_bytes``; else empty."""

    @property
    def nbytes(self) -> int:
        """Bytes that a step reads."""
        return self.data.nbytes + self.scales.nbytes + self.groups.nbytes

    def to(self, device: torch.device | str) -> PackedMatrix:
        """The same on another device."""
        data, scales, groups = (t.to(device) for t in (self.data, self.scales, self.groups))
        return PackedMatrix(self.format, self.rows, self.columns, data, scales, groups)


def quantise(weight: Tensor, kind: Format) -> PackedMatrix:
    """Pack a floating-point matrix [rows, columns]; the work is done on the weight's device."""
    if kind in ("fp32", "bf16"):
        dtype = torch.float32 if kind == "fp32" else torch.bfloat16
        ones = torch.ones(len(weight), device=weight.device)
        return _packed(kind, weight, weight.to(dtype).contiguous(), ones)
    tensor = _nonzero(weight.abs().max().float() / (E2M1[-1] * E4M3_MOST))
    packed = [_pack_rows(rows.float(), kind, tensor) for rows in torch.split(weight, ROWS_AT_ONCE)]
    data, scales, groups = zip(*packed, strict=True)
    return _packed(
        kind, weight, torch.cat(data), torch.cat(scales), torch.cat(groups, int(kind == "int4"))
    )


def _pack_rows(values: Tensor, kind: Format, tensor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Data, channel scales and group scales of some rows; ``tensor`` is NVFP4's tensor scale."""
    none = torch.empty(0, dtype=torch.uint8, device=values.device)
    if kind == "int8":
        scales = _nonzero(values.abs().amax(1) / 127.0)
        codes = (values / scales[:, None]).round().clamp(-127, 127) + 128
        return codes.to(torch.uint8), scales, none
    if kind == "fp8":
        scales = _nonzero(values.abs().amax(1) / E4M3_MOST)
        codes = (values / scales[:, None]).clamp(-E4M3_MOST, E4M3_MOST)
        return codes.to(torch.float8_e4m3fn).view(torch.uint8), scales, none
    padded = torch.nn.functional.pad(values, (0, -values.shape[1] % BLOCK))
    ones = torch.ones(len(values), device=values.device)
    if kind == "int4":
        codes, groups = _int4(padded)
        return pack_nibbles(codes), ones, groups
    codes, groups = _nvfp4(padded, tensor)
    return pack_nibbles(codes), ones * tensor * NVFP4_SHIFT, groups


def dequantise(packed: PackedMatrix) -> Tensor:
    """The values [rows, columns] that the kernels multiply with, in float32."""
    kind, data = packed.format, packed.data
    if kind in ("fp32", "bf16"):
        return data.float()
    if kind == "int8":
        return (data.float() - 128.0) * packed.scales[:, None]
    if kind == "fp8":
        return data.view(torch.float8_e4m3fn).float() * packed.scales[:, None]
    codes = unpack_nibbles(data)
    if kind == "int4":
        scales = packed.groups.t().float().repeat_interleave(INT4_GROUP, 1)
        values = (codes.float() - 8.0) * scales
    else:
        table = torch.tensor([*E2M1, *(-value for value in E2M1)], device=data.device)
        scales = scales_of(packed.groups) / NVFP4_SHIFT
        values = table[codes.long()] * scales.repeat_interleave(NVFP4_GROUP, 1)
    return (values * packed.scales[:, None])[:, : packed.columns]


def pack_nibbles(codes: Tensor) -> Tensor:
    """Codes 0..15 [rows, columns] of whole blocks into bytes [rows, columns / 2]."""
    blocks = codes.view(len(codes), -1, 2, BLOCK // 2)
    return (blocks[:, :, 0] | (blocks[:, :, 1] << 4)).reshape(len(codes), -1)


def unpack_nibbles(data: Tensor) -> Tensor:
    """The inverse of ``pack_nibbles``."""
    blocks = data.view(len(data), -1, 1, BLOCK // 2)
    return torch.cat((blocks & 15, blocks >> 4), 2).reshape(len(data), -1)


def scale_bytes(scales: Tensor) -> Tensor:
    """e4m3 scales, none negative, as uint8: three bits of fraction below five of exponent, so that
    small ones are no exception and a kernel makes bf16 of one by a shift and a sum. 0 is 0."""
    fraction, exponent = torch.frexp(scales.float())
    bits = ((exponent + (_SCALE_BIAS - 1)) << 3) + (16 * fraction - 8).int()
    return torch.where(fraction > 0, bits, 0).to(torch.uint8)


def scales_of(data: Tensor) -> Tensor:
    """The inverse of ``scale_bytes``, in float32."""
    values = torch.ldexp(1 + (data & 7).float() / 8, (data >> 3).int() - _SCALE_BIAS)
    return torch.where(data > 0, values, 0.0)


def interleave(gate: Tensor, up: Tensor) -> Tensor:
    """Rows of gate and up in turn: the two sums of a pair end up in one thread of the kernel."""
    return torch.stack((gate, up), 1).reshape(2 * len(gate), -1)


def stack(parts: list[PackedMatrix]) -> PackedMatrix:
    """Matrices of one format and width on top of each other (q, k and v)."""
    first = parts[0]
    groups = torch.cat([p.groups for p in parts], 1 if first.format == "int4" else 0)
    return PackedMatrix(
        first.format,
        sum(p.rows for p in parts),
        first.columns,
        torch.cat([p.data for p in parts]),
        torch.cat([p.scales for p in parts]),
        groups,
    )


def packed_bytes(rows: int, columns: int, kind: str) -> int:
    """What ``quantise`` makes of a matrix, in bytes."""
    if kind in FOUR_BITS:
        columns = -(-columns // BLOCK) * BLOCK
    return int(rows * columns * BITS[kind] / 8) + 4 * rows


def _packed(
    kind: Format, weight: Tensor, data: Tensor, scales: Tensor, groups: Tensor | None = None
) -> PackedMatrix:
    rows, columns = weight.shape
    if groups is None:
        groups = torch.empty(0, dtype=torch.uint8, device=weight.device)
    return PackedMatrix(kind, rows, columns, data.contiguous(), scales.float(), groups)


def _nonzero(scales: Tensor) -> Tensor:
    return torch.where(scales > 0, scales, torch.ones_like(scales))


def _int4(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and group scales, the clip of least squared error among a few."""
    grouped = values.view(len(values), -1, INT4_GROUP)
    most = grouped.abs().amax(2)

    def tries() -> Iterator[Try]:
        for clip in _INT4_CLIPS:
            scales = _nonzero((most * (clip / 7.0)).half())
            wide = scales.float()[:, :, None]
            codes = (grouped / wide).round().clamp(-8, 7)
            yield (codes + 8).to(torch.uint8), scales, codes * wide

    codes, scales = _closest(grouped, tries())
    return codes.view(values.shape), scales.t().contiguous()


def _nvfp4(values: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and group scales, ``scale`` being the tensor's. The largest value of a group becomes
    6 or 4, whichever errs less ("four over six")."""
    grouped = values.view(len(values), -1, NVFP4_GROUP)
    most = grouped.abs().amax(2)
    table = torch.tensor([*E2M1, *(-value for value in E2M1)], device=values.device)

    def tries() -> Iterator[Try]:
        for top in _NVFP4_TOPS:
            scales = (most / (top * scale)).clamp(max=E4M3_MOST).to(torch.float8_e4m3fn)
            wide = scales.float()[:, :, None] * scale
            codes = torch.where(wide > 0, _e2m1(grouped / _nonzero(wide)), 0)
            yield codes, scale_bytes(scales), table[codes.long()] * wide

    codes, scales = _closest(grouped, tries())
    return codes.view(values.shape), scales


def _closest(grouped: Tensor, tries: Iterator[Try]) -> tuple[Tensor, Tensor]:
    """Codes and scales of the try that is nearest to ``grouped`` [rows, groups, size], group by
    group; of equally near ones the first."""
    codes, scales, values = next(tries)
    least = ((values - grouped) ** 2).sum(2)
    for more_codes, more_scales, values in tries:
        error = ((values - grouped) ** 2).sum(2)
        better = error < least
        least = torch.where(better, error, least)
        scales = torch.where(better, more_scales, scales)
        codes = torch.where(better[:, :, None], more_codes, codes)
    return codes, scales


def _e2m1(values: Tensor) -> Tensor:
    """Codes of the nearest values, ties to the even code; bit 3 is the sign."""
    size = values.abs()
    code = torch.zeros_like(values, dtype=torch.uint8)
    for index, (low, high) in enumerate(pairwise(E2M1)):
        middle = (low + high) / 2
        code += ((size > middle) if index % 2 == 0 else (size >= middle)).to(torch.uint8)
    return code | ((values < 0).to(torch.uint8) << 3)
