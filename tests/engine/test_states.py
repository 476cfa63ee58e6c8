"""Streams keep the target's states that chose their tokens, and drafters that carry them draft
nothing that changes the text."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from atlasd_kernels import cpu
from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.cpu.correction import last_states
from safetensors.numpy import save_file

from atlasd.draft.drafter import Draft, StreamView, VerifiedRows
from atlasd.draft.lookahead import Chain, Lookahead
from atlasd.draft.neural import Neural
from atlasd.draft.registry import Drafting
from atlasd.draft.static import chain_model, load_extras
from atlasd.engine.assembly import drafting_for, replace_weights
from atlasd.engine.calibration import Calibrations
from atlasd.engine.costs import StepCosts
from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.loading import load
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Load, Sampling
from atlasd.engine.steps import Engine
from atlasd.models.decoder import kept_states
from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import folder_model
from atlasd.paths import paths
from tests.engine.tiny import HIDDEN, VOCAB, tiny_checkpoint

NATIVE, WHY_NOT = cpu.available()
pytestmark = pytest.mark.skipif(not NATIVE, reason=f"no native kernels: {WHY_NOT}")

SAMPLINGS = (Sampling(), Sampling(temperature=0.9, seed=7), Sampling(repetition_penalty=1.2))


@pytest.fixture
def decoders(tmp_path: Path) -> Iterator[tuple[CpuDecoder, CpuDecoder]]:
    files = folder_model(tiny_checkpoint(tmp_path / "tiny"), name="tiny")
    options = LoadOptions(weight_format="fp32", slots=5, slot_tokens=256, threads=1)
    made = [load_decoder(files, options).decoder for _ in range(2)]
    target, drafter = (decoder for decoder in made if isinstance(decoder, CpuDecoder))
    draw = np.random.default_rng(4)
    drafter.set_carry(draw.standard_normal((HIDDEN, HIDDEN)).astype(np.float32) * 0.02)
    yield target, drafter
    for decoder in made:
        decoder.close()


class Listening:
    """A chain model that notes what it is asked."""

    carries = True

    def __init__(self, drafter: CpuDecoder) -> None:
        self._model = chain_model(drafter, None)
        self.slots, self.slot_tokens = self._model.slots, self._model.slot_tokens
        self.read, self.memory_bytes = self._model.read, self._model.memory_bytes
        self.asked: list[Lookahead] = []

    def chain(self, ask: Lookahead) -> Chain:
        self.asked.append(ask)
        return self._model.chain(ask)


class Keeping:
    """A drafter that notes each stream's tokens and states when it ends."""

    name, free = "keeping", False

    def __init__(self) -> None:
        self.seen: list[tuple[list[int], int, np.ndarray | None]] = []

    def begin(self, stream: StreamView) -> None:
        pass

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        return Draft("none", [])

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        pass

    def settle(self, draft: Draft, accepted: int) -> None:
        pass

    def end(self, stream: StreamView) -> None:
        states = stream.states
        known = states.of(0, len(stream.tokens)) if states is not None else None
        self.seen.append((list(stream.tokens), stream.prompt_length, known))


def serve(
    target: CpuDecoder, model: Listening, keeping: Keeping, drafting: bool
) -> list[list[int]]:
    costs = StepCosts(target.bucket)
    for rows, ms in ((1, 1.0), (64, 1.2)):
        costs.measure(rows, 0, ms)
    neural = Neural(model, now=lambda: 0.0)
    neural.token_ms = 0.01
    drafters = Drafting(
        vocab_size=VOCAB, fingerprint="", costs=costs, neural=neural, extra=[keeping]
    )
    outputs = Outputs()
    engine = Engine(target, outputs.take, planning=Planning(drafters.controller))
    draw = np.random.default_rng(1)
    for number in range(4):
        prompt = draw.integers(0, VOCAB, 20 + 9 * number).tolist()
        sampling = SAMPLINGS[number % len(SAMPLINGS)]
        engine.submit(request(number, prompt, max_tokens=40, sampling=sampling, drafting=drafting))
    run(engine)
    return [outputs.pop(number).tokens for number in range(4)]


def test_a_stream_keeps_the_states_that_chose_its_tokens(
    decoders: tuple[CpuDecoder, CpuDecoder],
) -> None:
    target, drafter = decoders
    truth = serve(target, Listening(drafter), Keeping(), drafting=False)
    target.keep_states()
    model, keeping = Listening(drafter), Keeping()
    assert serve(target, model, keeping, drafting=True) == truth
    assert len(keeping.seen) == 4
    for tokens, prompt_length, known in keeping.seen:
        assert known is not None
        read = np.array(tokens[:-1], np.int32)
        states = last_states(target, read, 0, 0)
        assert known[prompt_length:].tobytes() == states[prompt_length - 1 :].tobytes()
        assert not known[:prompt_length].any()
    # The drafter was given the state that chose the last token wherever it drafted first.
    given = [(ask.chose[0], ask.tokens[-1]) for ask in model.asked if ask.chose is not None]
    assert given
    chosen = {
        tuple(row): token
        for tokens, prompt_length, known in keeping.seen
        if known is not None
        for row, token in list(zip(known, tokens, strict=True))[prompt_length:]
    }
    assert all(chosen[tuple(state)] == token for state, token in given)


def test_a_target_that_keeps_no_states_is_drafted_for_without(
    decoders: tuple[CpuDecoder, CpuDecoder],
) -> None:
    target, drafter = decoders
    model, keeping = Listening(drafter), Keeping()
    serve(target, model, keeping, drafting=True)
    assert model.asked
    assert all(ask.chose is None for ask in model.asked)
    assert all(known is None for _, _, known in keeping.seen)


@pytest.mark.parametrize("keeps", [False, True])
def test_replaced_weights_keep_states_where_the_old_ones_did(tmp_path: Path, keeps: bool) -> None:
    folders = paths({"ATLASD_HOME": str(tmp_path / "home")})
    loading = Load(model=str(tiny_checkpoint(tmp_path / "a")), slots=2, threads=1)
    served = load(loading, Calibrations(), folders, lambda doing, done: None)
    outputs = Outputs()
    engine = Engine(served.loaded.decoder, outputs.take)
    if keeps:
        served.loaded.decoder.keep_states()  # type: ignore[attr-defined]
    engine.submit(request(0, [1, 2, 3], max_tokens=4))
    run(engine)
    before = served.identity
    other = tiny_checkpoint(tmp_path / "b", seed=5)
    replace_weights(served, engine, None, str(other), folders)
    assert served.identity != before
    engine.submit(request(1, [1, 2, 3], max_tokens=4))
    run(engine)
    assert outputs[1].tokens != outputs[0].tokens
    assert (kept_states(served.loaded.decoder) is not None) == keeps
    served.loaded.decoder.close()


@pytest.mark.parametrize("carries", [False, True])
def test_a_target_keeps_states_where_its_drafter_carries_them(
    tmp_path: Path, carries: bool
) -> None:
    folders = paths({"ATLASD_HOME": str(tmp_path / "home")})
    named = tiny_checkpoint(tmp_path / "drafter")
    if carries:
        save_file({"weight": np.eye(HIDDEN, dtype=np.float32)}, named / "carry.safetensors")
    loading = Load(model=str(tiny_checkpoint(tmp_path / "a")), slots=2, threads=1)
    served = load(loading, Calibrations(), folders, lambda doing, done: None)
    files = folder_model(named, name="drafter")
    model = load_decoder(files, LoadOptions(slots=2, slot_tokens=256, threads=1)).decoder
    load_extras(model, named)
    neural = Neural(chain_model(model, None, files))
    engine = Engine(served.loaded.decoder, Outputs().take)
    drafting_for(served, engine, folders, neural)
    engine.submit(request(0, [1, 2, 3], max_tokens=4))
    run(engine)
    assert neural.model.carries == carries
    assert (kept_states(served.loaded.decoder) is not None) == carries
    for decoder in (served.loaded.decoder, model):
        decoder.close()
