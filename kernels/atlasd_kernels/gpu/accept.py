"""Sample-and-match acceptance on the device: how much of each draft the target agrees with."""

# mypy: allow-untyped-decorators, allow-untyped-calls
# mypy: disable-error-code="no-untyped-def,no-any-return,assignment"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from atlasd_kernels.gpu.launch import EXACT

MOST_ROWS = 64


def reference(chosen: Tensor, drafted: Tensor, first: Tensor, rows: Tensor) -> Tensor:
    """Accepted tokens per part; see ``accept``."""
    accepted = []
    for begin, count in zip(first.tolist(), rows.tolist(), strict=True):
        n = 0
        while n < count - 1 and chosen[begin + n] == drafted[begin + n + 1]:
            n += 1
        accepted.append(n)
    return torch.tensor(accepted, dtype=torch.int32)


@triton.jit
def accept_kernel(chosen, drafted, first, rows, accepted, MOST_ROWS: tl.constexpr):
    """Grid: parts."""
    part = tl.program_id(0)
    begin = tl.load(first + part)
    count = tl.load(rows + part)
    at = tl.arange(0, MOST_ROWS)
    asked = at < count - 1
    ours = tl.load(chosen + begin + at, mask=asked, other=0)
    theirs = tl.load(drafted + begin + at + 1, mask=asked, other=0)
    differs = asked & (ours != theirs)
    until = tl.min(tl.where(differs, at, MOST_ROWS), 0)
    tl.store(accepted + part, tl.minimum(until, tl.maximum(count - 1, 0)))


def accept(
    chosen: Tensor, drafted: Tensor, first: Tensor, rows: Tensor, accepted: Tensor, *, parts: int
) -> None:
    """For each part, int32 rows [first, first + rows) (at most ``MOST_ROWS``): ``drafted`` is the
    token fed at a row, ``chosen`` the target's choice after it. ``accepted`` is how many drafted
    tokens equal the choice before them, up to the first that does not."""
    accept_kernel[(parts,)](
        chosen, drafted, first, rows, accepted, MOST_ROWS=MOST_ROWS, num_warps=1, **EXACT
    )
