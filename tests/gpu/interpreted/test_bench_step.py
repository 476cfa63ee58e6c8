"""``bench.step`` on a GPU decoder: all but the clocks, which are the host's here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import pytest

from bench.gpu_step import HEADER, IN_GRAPH, KERNELS, StepCost, cells, measure, step_table
from tests.engine.models_checkpoints import random_model, save
from tests.gpu.interpreted.test_decoder import SMALL, decoder_of


class HostClocks:
    """A step's time here, and names that a profiler would give."""

    def wall(self, run: Callable[[], object]) -> float:
        began = perf_counter()
        run()
        return (perf_counter() - began) * 1e3

    device = wall

    def kernels(self, run: Callable[[], object]) -> dict[str, float]:
        named = {kernel.fn.__name__: 0.25 for part in KERNELS.values() for kernel in part}
        return {**named, "Memcpy HtoD (Pinned -> Device)": 0.5}


def test_a_step_is_taken_apart(tmp_path: Path) -> None:
    decoder = decoder_of(save(random_model("qwen2", **SMALL), tmp_path))
    cost = measure(decoder, "fp32", 2, 40, HostClocks())
    # The kernels that cuda_step.py says: nine a layer, the embedding and the head.
    assert cost.launched == 9 * decoder.config.layers + 2
    assert cost.parts == {
        "matmuls": 0.25, "attention": 0.5, "rows": 0.75, "choice": 0.75, "copies": 0.5,
    }  # fmt: skip
    a_position = decoder.memory_bytes()["slots"] / (decoder.slots * decoder.slot_tokens)
    assert cost.kv_bytes == 40 * a_position
    # The embedding is tied here, so a step reads every weight but the norms and biases.
    matrices = decoder.model.nbytes() - decoder.model.embedding.nbytes
    assert cost.weight_bytes == pytest.approx(matrices, rel=0.05)
    told = step_table({"fp32": decoder}, {"fp32": [cost, cost]}, 40, 1e9)
    assert told.splitlines()[2].count("|") == len(HEADER) + 2
    assert "without graphs: there is no GPU" in told
    assert told.count("| fp32 |") == 2
    decoder.close()


def test_what_a_step_takes_adds_up() -> None:
    parts = {"matmuls": 3.0, "attention": 0.5, "rows": 0.3, "choice": 0.1, "copies": 0.05}
    one = StepCost(1, 4.5, 4.0, parts, 254, 15_000_000_000, 200_000_000)
    assert one.gaps == pytest.approx(0.2)
    assert one.host == pytest.approx(0.35)
    whole = sum(parts[part] for part in (*IN_GRAPH, "choice", "copies")) + one.gaps + one.host
    assert whole == pytest.approx(one.wall)
    line = dict(zip(HEADER, cells(one, 28, 4e12, one), strict=True))
    assert (line["MB"], line["GB/s"], line["of bandwidth"]) == ("15200", "3378", "84%")
    assert (line["kernels a layer"], line["/ 1 row"]) == ("9", "1.00")
