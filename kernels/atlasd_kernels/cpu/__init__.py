"""Whole decoder steps on a CPU in one native call, with neither torch nor BLAS.

``available()`` tells whether the native library loads here; everything else needs it.
"""

from __future__ import annotations

from atlasd_kernels.cpu.decoder import CpuDecoder, WeightFormat, measure_threads, read_bandwidth
from atlasd_kernels.cpu.drafting import DraftedChain, draft_chain
from atlasd_kernels.cpu.library import available, instruction_sets
from atlasd_kernels.cpu.sampling import choose, top_k

__all__ = [
    "CpuDecoder",
    "DraftedChain",
    "WeightFormat",
    "available",
    "choose",
    "draft_chain",
    "instruction_sets",
    "measure_threads",
    "read_bandwidth",
    "top_k",
]
