"""The target's own next token per row of logits: argmax, or argmax with Gumbel noise; and the
likeliest tokens with their log-probabilities, for drafters and learners.

A row is cut into blocks of the vocabulary, one program each; a second kernel goes through the
blocks in ascending order. Ties go to the lowest id. A row whose choice is not a number gives -1.
"""

# mypy: allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="no-untyped-def,no-any-return,assignment"
from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from atlasd_kernels.gpu.launch import EXACT, power_of_two
from atlasd_kernels.gpu.noise import gumbel

BLOCK = 4096
TOP = 8
"""Likeliest tokens per row."""

NOISE_RANGE = 20.0
"""The noise lies between -2.82 and 16.64: what is further below the best needs none."""


@dataclass(frozen=True)
class Choices:
    """What is chosen per row; tensors on the device, [any, ...]."""

    tokens: Tensor
    """int32 [any]"""

    top_ids: Tensor
    """int32 [any, TOP], best first."""

    top_logprobs: Tensor
    """float32 [any, TOP], at temperature 1."""


def reference(logits: Tensor, temperature: Tensor, noise: Tensor) -> Tensor:
    """argmax of logit / temperature + noise, or of the logit where the temperature is 0."""
    sampled = temperature > 0
    scores = logits / torch.where(sampled, temperature, torch.ones_like(temperature))[:, None]
    return torch.where(sampled[:, None], scores + noise, logits).argmax(1).int()


def reference_top(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest ids [rows, TOP] and their log-probabilities."""
    values, ids = torch.sort(logits, dim=1, descending=True, stable=True)
    return ids[:, :TOP].int(), values[:, :TOP] - logits.logsumexp(1, keepdim=True)


def blocks(vocabulary: int) -> int:
    """Programs of a row."""
    return -(-vocabulary // BLOCK)


@triton.jit
def block_kernel(
    logits, temperatures, key0s, key1s, choices, indices, table, best, best_id, top, top_id, sums,
    vocabulary, row_stride,
    BLOCK: tl.constexpr, TOP: tl.constexpr, NOISE_RANGE: tl.constexpr,
):  # fmt: skip
    """Grid: rows, blocks of the vocabulary."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    place = row * tl.num_programs(1) + block
    token = block * BLOCK + tl.arange(0, BLOCK)
    inside = token < vocabulary
    values = tl.load(logits + row * row_stride + token, mask=inside, other=float("-inf"))
    wrong = tl.max((values != values).to(tl.int32), 0)
    highest = tl.max(values, 0)
    level = tl.where(highest == float("-inf"), 0.0, highest)
    tl.store(sums + place, tl.sum(tl.exp(values - level), 0))

    scores = values
    temperature = tl.load(temperatures + row)
    if temperature > 0.0:
        scores = tl.div_rn(values, tl.zeros((BLOCK,), tl.float32) + temperature)
        wanted = scores > tl.max(scores, 0) - NOISE_RANGE
        noise = gumbel(
            table, token, tl.load(indices + row), tl.load(choices + row),
            tl.load(key0s + row), tl.load(key1s + row), wanted,
        )  # fmt: skip
        scores = tl.where(wanted, scores + noise, float("-inf"))
    highest = tl.max(scores, 0)
    chosen = tl.min(tl.where(scores == highest, token, 2147483647), 0)
    tl.store(best + place, highest)
    tl.store(best_id + place, tl.where(wrong > 0, -1, chosen))

    for k in tl.static_range(TOP):
        highest = tl.max(values, 0)
        chosen = tl.min(tl.where(values == highest, token, 2147483647), 0)
        tl.store(top + place * TOP + k, highest)
        tl.store(top_id + place * TOP + k, chosen)
        values = tl.where(token == chosen, float("-inf"), values)


@triton.jit
def row_kernel(
    best, best_id, top, top_id, sums, tokens, top_ids, top_logprobs, count,
    BLOCKS: tl.constexpr, CANDIDATES: tl.constexpr, TOP: tl.constexpr,
):  # fmt: skip
    """Grid: rows. ``count`` is the number of blocks."""
    row = tl.program_id(0).to(tl.int64)
    block = tl.arange(0, BLOCKS)
    inside = block < count
    values = tl.load(best + row * count + block, mask=inside, other=float("-inf"))
    ids = tl.load(best_id + row * count + block, mask=inside, other=2147483647)
    wrong = tl.min(ids, 0) < 0
    highest = tl.max(values, 0)
    chosen = tl.min(tl.where(values == highest, ids, 2147483647), 0)
    tl.store(tokens + row, tl.where(wrong, -1, chosen))

    firsts = tl.load(top + (row * count + block) * TOP, mask=inside, other=float("-inf"))
    level = tl.max(firsts, 0)
    level = tl.where(level == float("-inf"), 0.0, level)
    parts = tl.load(sums + row * count + block, mask=inside, other=0.0)
    scale = tl.where(firsts == float("-inf"), 0.0, tl.exp(firsts - level))
    total = tl.log(tl.sum(parts * scale, 0)) + level

    candidate = tl.arange(0, CANDIDATES)
    inside = candidate < count * TOP
    at = row * count * TOP + candidate
    values = tl.load(top + at, mask=inside, other=float("-inf"))
    ids = tl.load(top_id + at, mask=inside, other=2147483647)
    for k in tl.static_range(TOP):
        highest = tl.max(values, 0)
        chosen = tl.min(tl.where(values == highest, ids, 2147483647), 0)
        tl.store(top_ids + row * TOP + k, chosen)
        tl.store(top_logprobs + row * TOP + k, highest - total)
        values = tl.where((values == highest) & (ids == chosen), float("-inf"), values)


class Chooser:
    """Buffers for choosing in up to ``rows`` rows; ``table`` is ``noise.gumbel_table``."""

    def __init__(self, rows: int, vocabulary: int, table: Tensor) -> None:
        device, parts = table.device, rows * blocks(vocabulary)
        self.vocabulary = vocabulary
        self.table = table
        self._floats = [torch.empty(parts * n, device=device) for n in (1, TOP, 1)]
        self._ids = [torch.empty(parts * n, dtype=torch.int32, device=device) for n in (1, TOP)]

    @property
    def nbytes(self) -> int:
        """Bytes held, the table included."""
        return sum(t.nbytes for t in (*self._floats, *self._ids, self.table))

    def choose(
        self, logits: Tensor, temperatures: Tensor, noise: Tensor, out: Choices, *, count: int
    ) -> None:
        """Choose in the first ``count`` rows of logits float32 [any, vocabulary].

        ``temperatures`` float32 [any]; ``noise`` int32 [4, any]: low and high half of the seed,
        choice and output index, read as unsigned.
        """
        best, top, sums = self._floats
        best_id, top_id = self._ids
        number = blocks(self.vocabulary)
        block_kernel[(count, number)](
            logits, temperatures, noise[0], noise[1], noise[2], noise[3], self.table,
            best, best_id, top, top_id, sums, self.vocabulary, logits.stride(0),
            BLOCK=BLOCK, TOP=TOP, NOISE_RANGE=NOISE_RANGE, num_warps=8, **EXACT,
        )  # fmt: skip
        row_kernel[(count,)](
            best, best_id, top, top_id, sums, out.tokens, out.top_ids, out.top_logprobs, number,
            BLOCKS=power_of_two(number), CANDIDATES=power_of_two(number * TOP), TOP=TOP,
            num_warps=4, **EXACT,
        )  # fmt: skip
