"""The order of what a recorder asks of the GPU; without one, so the driver is a list of calls."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from atlasd.models import cuda_load
from atlasd.models.cuda_graphs import Recorder


class Stream:
    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls, self.device = name, calls, torch.device("cuda")

    def wait_stream(self, other: Stream) -> None:
        self.calls.append(f"{self.name} waits for {other.name}")

    def synchronize(self) -> None:
        self.calls.append(f"host waits for {self.name}")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    made: list[str] = []
    ours, present = Stream("ours", made), Stream("present", made)

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        made.append(f"on {stream.name}")
        yield
        made.append("back")

    @contextmanager
    def capture(graph: object, *, pool: object, stream: Stream, **_: Any) -> Iterator[None]:
        made.append(f"capture on {stream.name}, pool {pool}")
        yield
        made.append("captured")

    class Graph:
        def replay(self) -> None:
            made.append("replay")

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: ours)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: present)
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: "of all")
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    return made


def test_a_step_is_compiled_after_its_buffers_are_filled_and_before_it_is_captured(
    calls: list[str],
) -> None:
    replay = Recorder(torch.device("cuda"))(lambda: calls.append("step"))
    # The side stream does not wait for the present one by itself: without the first line the step
    # reads buffers whose zeros are still on their way.
    assert calls == [
        "ours waits for present",
        *("on ours", "step", "back", "host waits for ours"),
        *("capture on ours, pool of all", "step", "captured"),
    ]
    replay()
    assert calls[-1] == "replay"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, and Triton may launch")
def test_a_triton_that_cannot_launch_is_told_when_loading(
    calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    # This machine's own Triton: it finds no driver, as it finds no C compiler elsewhere.
    assert "Triton cannot launch kernels (" in cuda_load.unavailable()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert "older than Ampere" in cuda_load.unavailable()
