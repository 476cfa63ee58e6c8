"""What the machine offers a model."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from atlasd.models import devices


class Timed:
    """A decoder whose steps take no time; remembers how many threads it was tried with."""

    def __init__(self) -> None:
        self.tried: set[int] = set()

    def find_sizes(self) -> None:
        self.tried.add(torch.get_num_threads())

    def forward(self, *rows: Any) -> None:
        pass


@pytest.mark.parametrize(("allowed", "granted", "most"), [(8, None, 8), (8, 2, 2), (2, 4, 2)])
def test_no_more_threads_are_tried_than_a_container_pays_for(
    allowed: int, granted: int | None, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, decoder = torch.get_num_threads(), Timed()
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda _: set(range(allowed)))
    monkeypatch.setattr(devices, "granted_processors", lambda: granted)
    try:
        assert devices.measure_threads(cast(Any, decoder)) <= most
    finally:
        torch.set_num_threads(before)
    assert max(decoder.tried) == most
