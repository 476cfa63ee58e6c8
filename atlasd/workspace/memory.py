"""Memory that indexing no longer needs goes back to the system, not only to the allocator.

glibc learns from the first large arrays that are freed to keep room for such arrays inside its
heaps (mallopt(3), the dynamic mmap threshold). A daemon that indexes for a minute and then rests
for hours would hold tens of megabytes of nothing.
"""

from __future__ import annotations

import contextlib
import ctypes

_M_MMAP_THRESHOLD = -3
_LARGE = 1 << 18


def return_large_blocks() -> None:
    """From now on give every large block back when it is freed. Nothing happens without glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE)


def return_free_memory() -> None:
    """Give back what is free now. Nothing happens without glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
