"""The Python face of the native decoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from atlasd_kernels.spec import DecoderSpec

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
WeightFormat = Literal["fp32", "bf16", "int8", "int4"]


class CpuDecoder:
    """A Llama-family decoder that runs whole steps in C++.

    The bits of a row depend on its slot's tokens up to its position and on nothing else: not on
    the number of rows, its place among them, its neighbours, prefill or decode, or threads.
    Not thread-safe: one call at a time.
    """

    row_independent = True
    prefill_chunk = 1
    prefill_rows = 256

    def __init__(
        self,
        spec: DecoderSpec,
        tensors: Mapping[str, npt.NDArray[Any]],
        *,
        weight_format: WeightFormat = "bf16",
        slots: int = 1,
        slot_tokens: int = 2048,
        threads: int | None = None,
        cache_dir: Path | None = None,
        identity: str | None = None,
        isa: str | None = None,
    ) -> None:
        """Pack the weights, or map them from the cache.

        ``tensors`` maps Hugging Face's names to float32, float16 or raw bfloat16 (uint16) arrays;
        it is only read while packing. ``identity`` names the source (a hash of the checkpoint,
        say) in the cache in ``cache_dir``; without either of the two nothing is cached.
        ``threads`` None: measured. ``isa`` forces one of ``instruction_sets()``.
        """
        raise NotImplementedError

    def bucket(self, rows: int) -> int:
        """The row count that ``rows`` are padded to; any number is its own bucket here."""
        return rows

    def forward(
        self,
        tokens: Int32,
        slots: Int32,
        positions: Int32,
        logits_rows: Int32,
        *,
        prefill: bool = False,
    ) -> Float32:
        """Run rows [R] and return logits [L, vocab] of the rows indexed by ``logits_rows``.

        Rows of one slot come in ascending positions; keys and values are written before attention,
        so a row sees the earlier rows of its slot in the same call. The array is valid until the
        next call. ``prefill`` changes nothing here: the bits are the same either way.
        """
        raise NotImplementedError

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Copy keys and values of positions [0, length) from one slot to another."""
        raise NotImplementedError

    def memory_bytes(self) -> dict[str, int]:
        """Bytes held, by purpose: ``weights``, ``slots``, ``scratch``."""
        raise NotImplementedError

    def close(self) -> None:
        """Free everything; the decoder cannot be used afterwards."""


def measure_threads() -> int:
    """The thread count to use on this machine now: measured, at most the number of free cores."""
    raise NotImplementedError
