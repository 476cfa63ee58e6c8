"""Packed weights as the numbers that ``tl.dot`` multiplies, from register to register.

While an H100's memory brings a weight of four bits, a lane can be given five instructions; with
more, decoding takes longer than reading. Hence bf16 is put together four bytes at a
time and two numbers to a register, in PTX; every step of it is exact. The interpreter takes no PTX
and computes in float32, where plain arithmetic gives the same values: ``tests/gpu/test_decode.py``
goes through every byte both ways.
"""

# mypy: allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="no-untyped-def,no-any-return,assignment"
# ruff: noqa: SIM300 (a parameter in capitals is no constant)
from __future__ import annotations

import triton
import triton.language as tl

# lop3's 0xea is (a & b) | c and its 0xae is (~a & b) | c. The fused multiply-add is the one bf16
# instruction that every card since Ampere has.

# e4m3 in bf16's place is 2**120 too small, also where it is subnormal.
FP8 = tl.constexpr("""{
.reg .b32 a, b, x, y, scale, zero;
mov.b32 scale, 0x7b807b80;
mov.b32 zero, 0x80008000;
prmt.b32 a, $2, 0, 0x1404;
prmt.b32 b, $2, 0, 0x3424;
shr.b32 x, a, 4;
shr.b32 y, b, 4;
and.b32 x, x, 0x07f007f0;
and.b32 y, y, 0x07f007f0;
lop3.b32 x, a, 0x80008000, x, 0xea;
lop3.b32 y, b, 0x80008000, y, 0xea;
fma.rn.bf16x2 $0, x, scale, zero;
fma.rn.bf16x2 $1, y, scale, zero;
}""")

# 128 + (the last seven bits), less 128 if the first bit is set and less 256 if it is not.
INT8 = tl.constexpr("""{
.reg .b32 a, b, x, y, one;
mov.b32 one, 0x3f803f80;
prmt.b32 a, $2, 0, 0x4140;
prmt.b32 b, $2, 0, 0x4342;
lop3.b32 x, a, 0x007f007f, 0x43004300, 0xea;
lop3.b32 y, b, 0x007f007f, 0x43004300, 0xea;
lop3.b32 a, a, 0x00800080, 0xc300c300, 0xae;
lop3.b32 b, b, 0x00800080, 0xc300c300, 0xae;
fma.rn.bf16x2 $0, x, one, a;
fma.rn.bf16x2 $1, y, one, b;
}""")

# 128 + code, less 136. The middle bytes change places, so that neighbours are 16 bits apart.
INT4 = tl.constexpr("""{
.reg .b32 w, x, one, least;
mov.b32 one, 0x3f803f80;
mov.b32 least, 0xc308c308;
prmt.b32 w, $4, 0, 0x3120;
lop3.b32 x, w, 0x000f000f, 0x43004300, 0xea;
fma.rn.bf16x2 $0, x, one, least;
shr.b32 x, w, 8;
lop3.b32 x, x, 0x000f000f, 0x43004300, 0xea;
fma.rn.bf16x2 $1, x, one, least;
shr.b32 x, w, 4;
lop3.b32 x, x, 0x000f000f, 0x43004300, 0xea;
fma.rn.bf16x2 $2, x, one, least;
shr.b32 x, w, 12;
lop3.b32 x, x, 0x000f000f, 0x43004300, 0xea;
fma.rn.bf16x2 $3, x, one, least;
}""")

# e2m1 in bf16's place is 2**126 too small, also where it is subnormal; the scale makes up for it.
NVFP4 = tl.constexpr("""{
.reg .b32 w, x, y, zero;
mov.b32 zero, 0x80008000;
prmt.b32 w, $4, 0, 0x3120;
shl.b32 x, w, 6;
shl.b32 y, w, 12;
and.b32 x, x, 0x01c001c0;
lop3.b32 x, y, 0x80008000, x, 0xea;
fma.rn.bf16x2 $0, x, $5, zero;
shr.b32 x, w, 2;
shl.b32 y, w, 4;
and.b32 x, x, 0x01c001c0;
lop3.b32 x, y, 0x80008000, x, 0xea;
fma.rn.bf16x2 $1, x, $6, zero;
shl.b32 x, w, 2;
shl.b32 y, w, 8;
and.b32 x, x, 0x01c001c0;
lop3.b32 x, y, 0x80008000, x, 0xea;
fma.rn.bf16x2 $2, x, $7, zero;
shr.b32 x, w, 6;
and.b32 x, x, 0x01c001c0;
lop3.b32 x, w, 0x80008000, x, 0xea;
fma.rn.bf16x2 $3, x, $8, zero;
}""")

SCALE = tl.constexpr(0x7580)
"""bf16 of 2**108: 2**118 where a scale's exponent is 10, which stands for 0."""


@triton.jit
def decode_bytes(raw, FORMAT: tl.constexpr, COMPUTE: tl.constexpr):
    """A tile of fp32, bf16, fp8 or int8 weights, without the channel scale."""
    if (FORMAT == "fp32") or (FORMAT == "bf16"):
        return raw.to(COMPUTE)
    elif COMPUTE == tl.bfloat16:
        PTX: tl.constexpr = FP8 if FORMAT == "fp8" else INT8
        return tl.inline_asm_elementwise(PTX, "=r,=r,r", [raw], tl.bfloat16, True, 4)
    elif FORMAT == "fp8":
        bits = raw.to(tl.uint32)
        bits = ((bits & 0x7F) << 20) | ((bits & 0x80) << 24)
        return bits.to(tl.float32, bitcast=True) * 1.329227995784916e36  # 2**120
    else:
        return raw.to(tl.float32) - 128.0


@triton.jit
def int4_tiles(raw, COMPUTE: tl.constexpr):
    """Tiles of the codes in the low and in the high nibbles of ``raw``, without their scales."""
    if COMPUTE == tl.bfloat16:
        return tl.inline_asm_elementwise(
            INT4, "=r,=r,=r,=r,r", [raw], (tl.bfloat16, tl.bfloat16), True, 4
        )
    else:
        return (raw & 15).to(tl.float32) - 8.0, (raw >> 4).to(tl.float32) - 8.0


@triton.jit
def nvfp4_scales(groups, WIDTH: tl.constexpr, COMPUTE: tl.constexpr):
    """Scales of groups [n, groups] over their columns [n, WIDTH], times 2**118."""
    if COMPUTE == tl.bfloat16:
        scale = ((groups.to(tl.uint16) << 4) + SCALE).to(tl.bfloat16, bitcast=True)
    else:
        scale = ((groups.to(tl.uint32) << 20) + (SCALE << 16)).to(tl.float32, bitcast=True)
    wide = tl.broadcast_to(
        scale[:, :, None], (groups.shape[0], groups.shape[1], WIDTH // groups.shape[1])
    )
    return tl.reshape(wide, (groups.shape[0], WIDTH))


@triton.jit
def nvfp4_tiles(raw, low_groups, high_groups, COMPUTE: tl.constexpr):
    """Tiles of the low and of the high nibbles of ``raw`` [n, width] times their scales, in
    2**-8ths."""
    low_scale = nvfp4_scales(low_groups, raw.shape[1], COMPUTE)
    high_scale = nvfp4_scales(high_groups, raw.shape[1], COMPUTE)
    if COMPUTE == tl.bfloat16:
        return tl.inline_asm_elementwise(
            NVFP4, "=r,=r,=r,=r,r,r,r,r,r", [raw, low_scale, high_scale],
            (tl.bfloat16, tl.bfloat16), True, 4,
        )  # fmt: skip
    else:
        bits = raw.to(tl.uint32)
        low = ((bits & 7) << 22) | ((bits & 8) << 28)
        high = ((bits & 0x70) << 18) | ((bits & 0x80) << 24)
        low = low.to(tl.float32, bitcast=True) * low_scale
        return low, high.to(tl.float32, bitcast=True) * high_scale
