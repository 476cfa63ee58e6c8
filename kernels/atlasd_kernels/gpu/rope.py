"""From the sums of the QKV matmul to queries and a written cache, in one kernel: split sums, the
norm's scale, bias, q/k norm, RoPE, and keys and values into their slot."""

# mypy: allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="no-untyped-def,no-any-return,assignment"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from atlasd_kernels.gpu.launch import EXACT, compute_type, power_of_two


def reference(
    states: Tensor, cos: Tensor, sin: Tensor, gains: tuple[Tensor, Tensor] | None, eps: float,
    heads: int, kv_heads: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Queries, keys and values [rows, heads of each, head_dim] of states [rows, heads + 2 kv_heads,
    head_dim] whose bias is in; cos and sin are [rows, head_dim / 2], gains those of q and k."""
    query, key, value = states.split([heads, kv_heads, kv_heads], 1)
    if gains is not None:
        query = torch.nn.functional.rms_norm(query, query.shape[-1:], gains[0], eps)
        key = torch.nn.functional.rms_norm(key, key.shape[-1:], gains[1], eps)

    def turn(x: Tensor) -> Tensor:
        first, second = x.chunk(2, 2)
        c, s = cos[:, None], sin[:, None]
        return torch.cat((first * c - second * s, second * c + first * s), 2)

    return turn(query), turn(key), value


@triton.jit
def head_half(
    partial, bias, row, rows, start, inside, lane, N, factor,
    SPLITS: tl.constexpr, BIAS: tl.constexpr,
):  # fmt: skip
    total = tl.zeros(lane.shape, tl.float32)
    for split in tl.static_range(SPLITS):
        at = (split * rows + row).to(tl.int64) * N + start + lane
        total = total + tl.load(partial + at, mask=inside, other=0.0)
    total = total * factor
    if BIAS:
        total = total + tl.load(bias + start + lane, mask=inside, other=0.0)
    return total


@triton.jit(do_not_specialize=["rows"])
def rope_kernel(
    partial, squares, bias, q_gain, k_gain, cos, sin, slots, positions, query, keys, values,
    rows, N, blocks, width, eps, slot_tokens,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HEAD_DIM: tl.constexpr, HALF: tl.constexpr,
    SPLITS: tl.constexpr, BLOCKS: tl.constexpr, BIAS: tl.constexpr, NORM: tl.constexpr,
    COMPUTE: tl.constexpr,
):  # fmt: skip
    """Grid: rows, heads + 2 kv_heads."""
    row = tl.program_id(0)
    head = tl.program_id(1)
    lane = tl.arange(0, HALF)
    inside = lane < HEAD_DIM // 2
    block = tl.arange(0, BLOCKS)
    parts = tl.load(squares + row * blocks + block, mask=block < blocks, other=0.0)
    factor = tl.rsqrt(tl.sum(parts, 0) / width + eps)
    start = head * HEAD_DIM
    first = head_half(partial, bias, row, rows, start, inside, lane, N, factor, SPLITS, BIAS)
    start = start + HEAD_DIM // 2
    second = head_half(partial, bias, row, rows, start, inside, lane, N, factor, SPLITS, BIAS)

    position = tl.load(positions + row)
    slot = tl.load(slots + row)
    if head < HEADS + KV_HEADS:
        if NORM:
            mean = (tl.sum(first * first, 0) + tl.sum(second * second, 0)) / HEAD_DIM
            scale = tl.rsqrt(mean + eps)
            gain = q_gain if head < HEADS else k_gain
            first = first * scale * tl.load(gain + lane, mask=inside, other=0.0)
            second = second * scale * tl.load(gain + HEAD_DIM // 2 + lane, mask=inside, other=0.0)
        angle = tl.maximum(position, 0) * (HEAD_DIM // 2) + lane
        c = tl.load(cos + angle, mask=inside, other=0.0)
        s = tl.load(sin + angle, mask=inside, other=0.0)
        turned = first * c - second * s
        second = second * c + first * s
        first = turned
    if head < HEADS:
        place = (row * HEADS + head) * HEAD_DIM + lane
        tl.store(query + place, first.to(COMPUTE), mask=inside)
        tl.store(query + place + HEAD_DIM // 2, second.to(COMPUTE), mask=inside)
    else:
        kv_head = (head - HEADS) % KV_HEADS
        target = keys if head < HEADS + KV_HEADS else values
        at = ((slot * KV_HEADS + kv_head).to(tl.int64) * slot_tokens + position) * HEAD_DIM + lane
        written = inside & (slot + 0 * lane >= 0)
        tl.store(target + at, first.to(COMPUTE), mask=written)
        tl.store(target + at + HEAD_DIM // 2, second.to(COMPUTE), mask=written)


def finish_qkv(
    partial: Tensor, squares: Tensor, bias: Tensor | None, gains: tuple[Tensor, Tensor] | None,
    cos: Tensor, sin: Tensor, slots: Tensor, positions: Tensor, query: Tensor, keys: Tensor,
    values: Tensor, *, count: int, splits: int, width: int, eps: float,
) -> None:  # fmt: skip
    """Take sums [splits, count, (heads + 2 kv_heads) * head_dim] of ``count`` rows to ``query``
    [any, heads, head_dim] and to ``keys`` and ``values`` [slots, kv_heads, slot_tokens, head_dim]
    at each row's slot and position; rows of slot -1 are written nowhere. ``squares``, ``width``
    and ``eps`` are those of the norm before the matmul; ``cos`` and ``sin`` [positions,
    head_dim / 2]."""
    heads, head_dim = query.shape[1:]
    kv_heads = keys.shape[1]
    columns = (heads + 2 * kv_heads) * head_dim
    rope_kernel[(count, heads + 2 * kv_heads)](
        partial, squares, partial if bias is None else bias,
        partial if gains is None else gains[0], partial if gains is None else gains[1],
        cos, sin, slots, positions, query, keys, values,
        count, columns, squares.shape[1], width, eps, keys.shape[2],
        HEADS=heads, KV_HEADS=kv_heads, HEAD_DIM=head_dim, HALF=power_of_two(head_dim // 2),
        SPLITS=splits, BLOCKS=power_of_two(squares.shape[1]), BIAS=bias is not None,
        NORM=gains is not None, COMPUTE=compute_type(query), num_warps=1, **EXACT,
    )  # fmt: skip
