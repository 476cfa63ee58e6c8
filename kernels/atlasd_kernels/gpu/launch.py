"""What every launcher shares: whether Triton runs here, and how kernels are compiled."""

from __future__ import annotations

import os
from functools import cache

import torch
import triton.language as tl
from torch import Tensor, bfloat16

from atlasd_kernels.gpu.tiling import SHARED

EXACT = {"enable_fp_fusion": False}
"""Products and sums are rounded one by one: how many rows a kernel is compiled for must not decide
which of them the compiler fuses."""


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "") == "1"


@cache
def shared_memory() -> int:
    """Bytes of shared memory that a program may use on this GPU."""
    if interpreted() or not torch.cuda.is_available():
        return SHARED
    about = torch.cuda.get_device_properties(torch.cuda.current_device())
    return max(SHARED, int(getattr(about, "shared_memory_per_block_optin", SHARED)) - 4096)


def compute_type(x: Tensor) -> tl.dtype:
    """The type that ``tl.dot`` multiplies in, which activations are also kept in. The interpreter
    cannot multiply bf16, so there it is float32."""
    return tl.bfloat16 if x.dtype == bfloat16 else tl.float32


def power_of_two(n: int) -> int:
    """The smallest power of two from ``n`` on."""
    return 1 << max(0, n - 1).bit_length()
