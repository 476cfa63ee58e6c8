"""The adapter in the engine: text is the same whatever it has learned, requests come first, and
weights are replaced in place."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from atlasd_kernels import cpu

from atlasd.draft.neural import ADAPTER, Neural
from atlasd.draft.registry import Drafting
from atlasd.draft.static import _AdaptableChain, chain_model
from atlasd.engine.costs import StepCosts
from atlasd.engine.inprocess import Output, Outputs, request, run
from atlasd.engine.native import fastest_choose
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Sampling
from atlasd.engine.spare import SpareSlot
from atlasd.engine.steps import Engine
from atlasd.learn.adapter import Adapter
from atlasd.learn.learner import Learner
from atlasd.models.decoder import Decoder
from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import folder_model
from tests.engine.tiny import HIDDEN, VOCAB, tiny_checkpoint

NATIVE, WHY_NOT = cpu.available()
pytestmark = pytest.mark.skipif(not NATIVE, reason=f"no native kernels: {WHY_NOT}")

SAMPLINGS = (Sampling(), Sampling(temperature=0.9, seed=7), Sampling(repetition_penalty=1.2))


class Serving:
    """A tiny target, drafted for by the same weights, with a learner."""

    def __init__(self, folder: Path) -> None:
        files = folder_model(tiny_checkpoint(folder), name="tiny")
        options = LoadOptions(weight_format="fp32", slots=6, slot_tokens=512, threads=1)
        self.decoder: Decoder = load_decoder(files, options).decoder
        self.model = chain_model(load_decoder(files, options).decoder, None, files)
        assert isinstance(self.model, _AdaptableChain)
        self.costs = StepCosts(self.decoder.bucket)
        for rows, ms in ((1, 1.0), (64, 1.2)):
            self.costs.measure(rows, 0, ms)
        neural = Neural(self.model, now=lambda: 0.0)
        neural.token_ms = 0.01
        self.drafting = Drafting(vocab_size=VOCAB, fingerprint="", costs=self.costs, neural=neural)
        self.outputs = Outputs()
        self.engine = Engine(self.decoder, self.outputs.take, choose=fastest_choose())
        self.target = SpareSlot(self.engine, self.costs)
        told = self.drafting.recycle.add_choices
        self.clock: Callable[[], float] = time.perf_counter
        self.learner = Learner(
            *(self.model, neural, self.costs),
            target=self.target,
            told=told,
            now=lambda: self.clock(),
        )
        self.drafting.learn_with(self.learner, self.learner)

    def serve(self, prompts: list[list[int]], drafting: bool) -> list[list[int]]:
        planning = Planning(self.drafting.controller) if drafting else None
        self.engine.set_planning(planning)
        for number, prompt in enumerate(prompts):
            sampling = SAMPLINGS[number % len(SAMPLINGS)]
            submit = request(number, prompt, max_tokens=40, sampling=sampling)
            submit.repository = "/r"
            self.engine.submit(submit)
        run(self.engine)
        outputs: list[Output] = [self.outputs.pop(number) for number in range(len(prompts))]
        assert {output.reason for output in outputs} == {"length"}
        return [output.tokens for output in outputs]

    def use(self, seed: int, scale: float) -> None:
        """Promote an adapter of random weights."""
        draw = np.random.default_rng(seed)
        adapter = Adapter.fresh(np.arange(0, VOCAB, 2, dtype=np.int32), HIDDEN, VOCAB, seed)
        for name in ("up", "last", "before", "bias"):
            array = getattr(adapter, name)
            array[:] = draw.standard_normal(array.shape) * scale
        self.learner.repositories.of("/r").versions.promote(adapter, 0.1)


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Serving]:
    made = Serving(tmp_path / "tiny")
    yield made
    made.decoder.close()


def prompts(count: int) -> list[list[int]]:
    draw = np.random.default_rng(1)
    return [draw.integers(0, VOCAB, 20 + 9 * n).tolist() for n in range(count)]


def test_whatever_the_adapter_has_learned_the_text_is_the_same(serving: Serving) -> None:
    truth = serving.serve(prompts(6), drafting=False)
    for seed, scale in ((0, 0.0), (1, 0.02), (2, 1.0)):
        serving.use(seed, scale)
        assert serving.serve(prompts(6), drafting=True) == truth
        while serving.learner.idle(20.0):
            pass
        assert serving.serve(prompts(6), drafting=True) == truth
    tallies = serving.drafting.controller.tallies
    assert tallies[ADAPTER].drafted > 0
    serving.engine.check_integrity()


def test_what_is_read_in_idle_time_is_what_the_target_says(serving: Serving) -> None:
    text = np.array(prompts(4)[3], np.int32)
    serving.drafting.add_segment("a.py", "/r", "file", text, "python")
    while serving.learner.idle(20.0):
        pass
    replay = serving.learner.repositories.of("/r").replay
    (passage,) = replay.recent
    assert passage.rows == len(text) - 1
    rows = np.arange(len(text), dtype=np.int32)
    logits = serving.decoder.forward(text, rows * 0, rows, rows)
    assert passage.top[:, 0].tolist() == logits.argmax(axis=1)[1:].tolist()
    assert np.exp(passage.logprobs.astype(np.float64)).sum(axis=1).max() <= 1.01
    said = {
        (int(one), int(two)): int(choice)
        for one, two, choice in zip(text[:-1], text[1:], passage.top[:, 0], strict=True)
    }
    votes = serving.drafting.recycle.votes
    assert [votes(*pair)[0][0] for pair in said] == list(said.values())


def test_reading_gives_way_to_a_request_and_spoils_nothing(serving: Serving) -> None:
    truth = serving.serve(prompts(3), drafting=False)
    for number in range(3):
        text = np.random.default_rng(number).integers(0, VOCAB, 400).astype(np.int32)
        serving.drafting.add_segment(f"{number}.py", "/r", "file", text, "python")
    for _ in range(12):
        serving.learner.idle(0.0)  # one unit: in the middle of a text
        assert serving.serve(prompts(3)[:1], drafting=True) == truth[:1]
    assert serving.serve(prompts(3), drafting=True) == truth


def test_a_slice_of_idle_time_ends_on_time(serving: Serving) -> None:
    for number in range(2):
        text = np.random.default_rng(number).integers(0, VOCAB, 600).astype(np.int32)
        serving.drafting.add_segment(f"{number}.py", "/r", "file", text, "python")
    ticks = count()
    serving.clock = lambda: next(ticks) / 1e3  # each unit takes a millisecond
    read, of_unit = 0, []
    forward = serving.decoder.forward

    def counted(tokens: np.ndarray, *rest: np.ndarray) -> np.ndarray:
        nonlocal read
        read += len(tokens)
        return forward(tokens, *rest)

    serving.decoder.forward = counted  # type: ignore[method-assign,assignment]
    while serving.drafting.idle(4.5):
        assert next(ticks) % 7 == 6  # when it began, and behind each of five units
        of_unit.append(read)
        read = 0
    # and a unit reads no more than what fits into a call
    assert 0 < max(of_unit) <= 5 * serving.target.rows


def test_no_thread_is_left_behind(serving: Serving) -> None:
    before = threading.active_count()
    serving.serve(prompts(2), drafting=True)
    while serving.learner.idle(20.0):
        pass
    assert threading.active_count() == before


def test_replaced_weights_serve_their_own_text(serving: Serving, tmp_path: Path) -> None:
    truth = serving.serve(prompts(3), drafting=True)
    folder = tiny_checkpoint(tmp_path / "other")
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * np.linspace(
        0.2, 2.0, HIDDEN, dtype=np.float32
    )
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    options = LoadOptions(weight_format="fp32", slots=6, slot_tokens=512, threads=1)
    other = load_decoder(folder_model(folder, name="other"), options).decoder
    old, serving.decoder = serving.decoder, other
    serving.engine.set_planning(None)
    serving.engine.replace(other)
    old.close()
    serving.drafting.target_changed()
    plain = serving.serve(prompts(3), drafting=False)
    assert plain != truth
    assert serving.serve(prompts(3), drafting=True) == plain
