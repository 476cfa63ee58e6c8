"""What gives way when a GPU's memory runs out, at every place where it can; without a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

from atlasd.errors import ModelError
from atlasd.models.cuda_budget import shrinking, smaller
from atlasd.models.cuda_decoder import CudaDecoder
from atlasd.models.cuda_graphs import Graphs
from atlasd.models.cuda_layout import BUCKETS
from atlasd.models.load import decoder_spec
from atlasd.models.memory import SlotPlan
from atlasd.models.quant import QuantModel, quantise_model
from bench.shapes import shape_config
from bench.step import RandomTensors

Step = Callable[[], None]
CONFIG = replace(shape_config("14M"), layers=2, sliding_window=(None, None))


@pytest.fixture(scope="module")
def model() -> QuantModel:
    weights = RandomTensors(decoder_spec(CONFIG))
    return quantise_model(weights, CONFIG, "fp32", torch.device("cpu"))


def exhausted(step: Step) -> Step:
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_slots_go_first_then_context_then_graphs(caplog: pytest.LogCaptureFixture) -> None:
    tried = []

    def make(slots: SlotPlan, graphs: bool) -> SlotPlan:
        tried.append((slots.slots, slots.slot_tokens, graphs))
        if graphs:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return slots

    assert shrinking("model", SlotPlan(4, 8192), make) == SlotPlan(1, 2048)
    expected = [(4, 8192), (2, 8192), (1, 8192), (1, 4096), (1, 2048)]
    assert tried == [*((*plan, True) for plan in expected), (1, 2048, False)]
    assert caplog.text.count("out of GPU memory") == 4
    assert smaller(SlotPlan(1, 2048)) is None


def test_what_does_not_fit_at_all_is_an_error_that_says_what_to_do() -> None:
    def never(slots: SlotPlan, graphs: bool) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(ModelError, match="does not fit"):
        shrinking("model", SlotPlan(2, 4096), never)


def test_memory_that_runs_out_while_capturing_costs_slots(model: QuantModel) -> None:
    recorded: list[int] = []

    def make(slots: SlotPlan, graphs: bool) -> CudaDecoder:
        decoder = CudaDecoder(CONFIG, model, slots, prefill_rows=16)

        def record(step: Step) -> Step:
            recorded.append(slots.slots)
            # The third bucket is one too many for four slots.
            return exhausted(step) if slots.slots > 2 and len(recorded) == 3 else step

        decoder.capture(record)
        return decoder

    decoder = shrinking("model", SlotPlan(4, 2048), make)
    assert (decoder.slots, decoder.slot_tokens) == (2, 2048)
    assert recorded == [4] * 3 + [2] * len(BUCKETS)
    assert decoder.graphs.reason == ""


@pytest.mark.parametrize("words", ["CUDA out of memory. Tried to", "CUDA error: out of memory"])
def test_a_capture_that_is_broken_off_still_tells_that_memory_ran_out(words: str) -> None:
    """Leaving it raises an error of its own, as ``torch.cuda.graph`` does."""

    def record(step: Step) -> Step:
        try:
            raise RuntimeError(words)
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    graphs = Graphs(lambda bucket: None)
    with pytest.raises(torch.OutOfMemoryError):
        graphs.capture(record)
    assert graphs.reason


def test_any_other_reason_is_logged_once_and_steps_run_eagerly(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ran: list[int] = []

    def record(step: Step) -> Step:
        if len(ran) == 2:
            raise RuntimeError("operation not permitted when stream is capturing")
        step()
        return lambda: ran.append(-1)

    graphs = Graphs(ran.append)
    with caplog.at_level(logging.WARNING):
        graphs.capture(record)
        graphs.run(4)
    assert ran == [64, 32, 1, 4]
    assert "not permitted" in graphs.reason
    assert [message for message in caplog.messages if "without CUDA graphs" in message] == [
        f"steps run without CUDA graphs, which is slower: {graphs.reason}"
    ]


def test_steps_that_fail_eagerly_as_well_are_no_fallback(caplog: pytest.LogCaptureFixture) -> None:
    """As without the C compiler that Triton's launcher needs: every request would fail."""

    def step(bucket: int) -> None:
        raise RuntimeError("Failed to find C compiler")

    def record(run: Step) -> Step:
        run()
        return run

    with pytest.raises(RuntimeError, match="C compiler"):
        Graphs(step).capture(record)
    assert "without CUDA graphs" not in caplog.text


def test_recorded_steps_are_done_again_without_their_code() -> None:
    ran: list[object] = []

    def record(step: Step) -> Step:
        step()
        bucket = ran[-1]
        return lambda: ran.append(f"replayed {bucket}")

    graphs = Graphs(ran.append)
    graphs.capture(record)
    ran.clear()
    graphs.run(8)
    assert ran == ["replayed 8"]
    assert graphs.reason == ""
    graphs.close()
    graphs.run(8)
    assert ran == ["replayed 8", 8]
