"""Steps as CUDA graphs, one per row bucket, in one memory pool; eager where that fails."""

# mypy: allow-untyped-calls
from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from atlasd.models.cuda_layout import BUCKETS
from atlasd.models.locate import Progress

log = logging.getLogger(__name__)

Record = Callable[[Callable[[], None]], Callable[[], None]]
"""Runs a step while noting what it does; what comes back does it again."""


class Recorder:
    """Records steps of a GPU into CUDA graphs that share one pool."""

    def __init__(self, device: torch.device) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        self._stream = torch.cuda.Stream(device)

    def __call__(self, step: Callable[[], None]) -> Callable[[], None]:
        """Run a step once, which compiles its kernels, then capture it."""
        # The step reads what was asked for on the present stream: buffers, weights, zeros.
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            step()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # What other threads ask of the GPU meanwhile is no part of it and breaks nothing.
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
        ):
            step()
        replay: Callable[[], None] = graph.replay
        return replay


class Graphs:
    """Runs ``step(bucket)`` by replaying what it did when it was recorded.

    A bucket that is not recorded runs eagerly, which is slower and gives the same bits.
    """

    def __init__(self, step: Callable[[int], None]) -> None:
        self._step = step
        self._replays: dict[int, Callable[[], None]] = {}
        self.reason = "not captured"
        """Why steps run eagerly; empty if they do not."""

    def capture(self, record: Record, progress: Progress | None = None) -> None:
        """Record every bucket, the largest first, so that smaller ones fit into the pool that is
        there. If one cannot be recorded all run eagerly, and the reason is logged once.

        Raises torch.OutOfMemoryError where that is the reason: with fewer slots there is room, and
        eager steps would cost more than slots do. Raises what an eager step raises where those fail
        as well.
        """
        for number, bucket in enumerate(reversed(BUCKETS)):
            if progress:
                progress("capturing steps", number / len(BUCKETS))
            try:
                self._replays[bucket] = record(lambda bucket=bucket: self._step(bucket))  # type: ignore[misc]
            except RuntimeError as error:
                self._replays.clear()
                if out_of_memory(error):
                    raise torch.OutOfMemoryError(f"capturing steps: {error}") from error
                self._step(BUCKETS[0])
                self.run_eagerly(str(error))
                return
        self.reason = ""

    def run_eagerly(self, reason: str) -> None:
        """Do without graphs from now on, and log why."""
        self._replays.clear()
        self.reason = reason
        log.warning("steps run without CUDA graphs, which is slower: %s", reason)

    def run(self, bucket: int) -> None:
        """Start a step of this bucket on the current stream."""
        if replay := self._replays.get(bucket):
            replay()
        else:
            self._step(bucket)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within this, steps run eagerly, as a profiler wants to see them."""
        replays, self._replays = self._replays, {}
        try:
            yield
        finally:
            self._replays = replays

    def close(self) -> None:
        """Free the graphs."""
        self._replays.clear()


def out_of_memory(error: BaseException) -> bool:
    """Whether this is, or came of, memory running out. The driver says so in words of its own, and
    leaving a capture that was broken off raises an error that hides the first."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError) or "out of memory" in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False
