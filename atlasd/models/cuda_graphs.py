"""Steps as CUDA graphs, one per row bucket, in one memory pool; eager where that fails."""

# mypy: allow-untyped-calls
from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch

from atlasd.models.cuda_layout import BUCKETS

log = logging.getLogger(__name__)

Progress = Callable[[str, float], None]


class Graphs:
    """Runs ``step(bucket)`` by replaying what it did when it was captured.

    Buckets are captured largest first, so that smaller ones fit into the pool that is there. A
    bucket that cannot be captured runs eagerly, which is slower and gives the same bits; the
    reason is logged once.
    """

    def __init__(self, step: Callable[[int], None], device: torch.device) -> None:
        self._step = step
        self._device = device
        self._graphs: dict[int, Any] = {}
        self.reason = "not captured yet"
        """Why steps run eagerly; empty if they do not."""

    def capture(self, progress: Progress | None = None) -> None:
        """Run every bucket once (which compiles its kernels), then capture it."""
        if self._device.type != "cuda":
            self.reason = "there is no GPU"
            return
        pool = torch.cuda.graph_pool_handle()
        stream = torch.cuda.Stream(self._device)
        for number, bucket in enumerate(reversed(BUCKETS)):
            if progress:
                progress("capturing steps", number / len(BUCKETS))
            try:
                with torch.cuda.stream(stream):
                    self._step(bucket)
                stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, pool=pool, stream=stream):
                    self._step(bucket)
            except RuntimeError as error:
                self._give_up(str(error))
                return
            self._graphs[bucket] = graph
        self.reason = ""

    def run(self, bucket: int) -> None:
        """Start a step of this bucket on the current stream."""
        graph = self._graphs.get(bucket)
        if graph is None:
            self._step(bucket)
        else:
            graph.replay()

    def close(self) -> None:
        """Free the graphs."""
        self._graphs.clear()

    def _give_up(self, reason: str) -> None:
        self.reason = reason
        self._graphs.clear()
        log.warning("steps run without CUDA graphs, which is slower: %s", reason)
