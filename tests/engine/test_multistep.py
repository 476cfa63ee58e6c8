"""Steps taken several at a time are the steps taken one by one: the same tokens, the same drafts,
the same learned from them."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from atlasd_kernels import cpu
from atlasd_kernels.cpu.library import native
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from atlasd.draft.lookahead import Lookahead
from atlasd.draft.neural import Neural
from atlasd.draft.registry import Drafting
from atlasd.draft.static import chain_model
from atlasd.engine.inprocess import Output, Outputs, request, run
from atlasd.engine.judged import RESTING
from atlasd.engine.multistep import MOST_STEPS, MultiStep
from atlasd.engine.native import fastest_choose
from atlasd.engine.pace import Pace
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Sampling, Submit, Tokens
from atlasd.engine.steps import Engine
from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import find_model
from tests.engine.tiny import VOCAB, tiny_checkpoint

pytestmark = pytest.mark.skipif(not cpu.available()[0], reason=cpu.available()[1] or "native")

SAMPLINGS = (Sampling(), Sampling(temperature=0.2, seed=7), Sampling(temperature=0.9, seed=8))


class Costs:
    """Rows cost little, so that drafts are long."""

    def ms(self, rows: int, kv_tokens: int) -> float:
        return 1.0 + 0.02 * rows + kv_tokens / 1e5

    def bucket(self, rows: int) -> int:
        return rows


@dataclass
class Serving:
    """An engine with its drafters."""

    engine: Engine
    outputs: Outputs
    drafting: Drafting
    interrupt: ctypes.c_int32
    calls: list[int]
    """Steps of each native call."""
    together: list[int]
    """The same of those that several streams took together."""
    full: list[int]
    """Streams whose tail had no room for what a native step verified."""

    def __call__(self, *submits: Submit) -> list[Output]:
        """One after the other."""
        for submit in submits:
            self.at_once(submit)
        return [self.outputs[submit.stream] for submit in submits]

    def at_once(self, *submits: Submit) -> list[Output]:
        for submit in submits:
            self.engine.submit(submit)
        run(self.engine)
        self.engine.check_integrity()
        return [self.outputs[submit.stream] for submit in submits]

    def explained(self, number: int) -> list[dict[str, object]]:
        """Why a stream's steps were planned as they were, and not what that took."""
        steps = self.engine.planning.explain(number)
        for step in steps:
            step.pop("drafting_ms", None)
        return steps


@pytest.fixture(scope="module")
def decoders(tmp_path_factory):
    """Two for targets, two for static drafters; what their slots hold is nobody's concern."""
    folder = tiny_checkpoint(tmp_path_factory.mktemp("multistep"))
    options = LoadOptions(device="cpu", weight_format="bf16", slots=4, threads=1)
    loaded = [load_decoder(find_model(str(folder)), options).decoder for _ in range(4)]
    yield loaded
    for one in loaded:
        one.close()


@pytest.fixture(scope="module")
def serving(decoders):
    def make(together: bool, *, static: bool = False) -> Serving:
        neural = Neural(chain_model(decoders[2 + together], None)) if static else None
        drafting = Drafting(vocab_size=VOCAB, fingerprint="f", costs=Costs(), neural=neural)
        outputs, interrupt, calls, crowds, full = Outputs(), ctypes.c_int32(), [], [], []
        engine = Engine(
            decoders[together],
            outputs.take,
            planning=Planning(drafting.controller),
            choose=fastest_choose(),
            interrupt=interrupt,
        )
        native = engine._multistep
        assert native is not None
        if together:
            take = native.take

            def noted(streams, ahead, budget_ms):
                taken = take(streams, ahead, budget_ms)
                calls.append(taken.steps)
                if len(streams) > 1:
                    crowds.append(taken.steps)
                pairs = zip(streams, taken.streams, strict=True)
                full.extend(stream.number for stream, mine in pairs if mine.unwritten)
                return taken

            native.take = noted
        else:
            engine.one_by_one()
        return Serving(engine, outputs, drafting, interrupt, calls, crowds, full)

    return make


def facts(output: Output) -> tuple[object, ...]:
    stats = output.stats
    return (
        output.tokens,
        output.reason,
        stats.steps,
        stats.rows,
        stats.output_tokens,
        stats.drafted,
        stats.accepted,
        pytest.approx(stats.foreseen),
    )


def drawn(data: st.DataObject, number: int, prompts: list[list[int]], *, stops: int) -> Submit:
    """Any request with one of these prompts and at most so many stop tokens."""
    submit = request(
        number,
        data.draw(st.sampled_from(prompts)),
        max_tokens=data.draw(st.integers(1, 90)),
        sampling=data.draw(st.sampled_from(SAMPLINGS)),
        stop_tokens=data.draw(st.lists(st.integers(0, VOCAB - 1), max_size=stops, unique=True)),
        drafting=data.draw(st.booleans()),
    )
    submit.learn = data.draw(st.booleans())
    submit.repository = "r"
    return submit


@given(st.data())
def test_they_are_what_single_steps_are(serving, data):
    together, single = serving(True), serving(False)
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    prompts = [draw.integers(0, 40, draw.integers(1, 80)).tolist() for _ in range(3)]
    for number in range(data.draw(st.integers(1, 5))):
        submit = drawn(data, number, prompts, stops=40)
        (ours,), (theirs,) = together(submit), single(submit)
        assert facts(ours) == facts(theirs)
        # what lies behind an output's end was drafted, and nobody judged it
        assert ours.stats.foreseen <= sum(ours.stats.drafted.values()) + 1e-9
        assert together.explained(number) == single.explained(number)
    assert_learned_the_same(together, single)


def assert_learned_the_same(one: Serving, other: Serving) -> None:
    assert one.drafting.sources() == other.drafting.sources()
    learned = [serving.drafting.text.state() for serving in (one, other)]
    np.testing.assert_array_equal(learned[0].weights, learned[1].weights)
    assert one.engine.counters.values["rows"] == other.engine.counters.values["rows"]


@given(st.data())
def test_so_they_are_of_several_streams(serving, data):
    """Of which some are not drafted for, some sample, and the fifth waits for a slot. Only where a
    tail has no room for a step's tokens are these learned behind the other streams'."""
    together, single = serving(True), serving(False)
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    prompts = [draw.integers(0, 40, draw.integers(17, 80)).tolist() for _ in range(3)]
    numbers = itertools.count()
    for _ in range(data.draw(st.integers(1, 3))):
        submits = []
        for number in itertools.islice(numbers, data.draw(st.integers(2, 5))):
            submits.append(drawn(data, number, prompts, stops=3))
        both = list(zip(together.at_once(*submits), single.at_once(*submits), strict=True))
        assert all(ours.tokens == theirs.tokens for ours, theirs in both)
        if together.full:
            return
        assert all(facts(ours) == facts(theirs) for ours, theirs in both)
        for submit in submits:
            assert together.explained(submit.stream) == single.explained(submit.stream)
    assert_learned_the_same(together, single)


def test_drafts_are_accepted_and_rejected_on_the_way(serving):
    together = serving(True)
    prompt = list(range(50, 90))
    outputs = together(*(request(n, prompt, max_tokens=120) for n in range(3)))
    assert len({tuple(output.tokens) for output in outputs}) == 1
    assert max(together.calls) > 2
    again = outputs[-1].stats
    assert again.steps < 60, "the text is known by then"
    drafted, accepted = sum(again.drafted.values()), sum(again.accepted.values())
    assert 60 < accepted <= drafted


@pytest.mark.parametrize("streams", [1, 3])
def test_a_tail_without_room_grows_between_calls(serving, streams):
    """The text drafter's arrays are Python's: where a stream's tail is full, steps end. (What it
    then learns of that step, it learns after the others: it may draft differently behind that.)"""
    together, single = serving(True), serving(False)
    for turn in range(2):
        submits = [
            request(turn * streams + one, list(range(one, 20)), max_tokens=450 + 7 * one)
            for one in range(streams)
        ]
        for ours, theirs in zip(together.at_once(*submits), single.at_once(*submits), strict=True):
            assert ours.tokens == theirs.tokens
            assert streams > 1 or facts(ours) == facts(theirs)
    assert together.full
    assert max(together.calls) > 2
    assert (max(together.together, default=0) > 2) == (streams > 1)
    segments = [
        [s.length for s in one.drafting.index.segments.values()] for one in (together, single)
    ]
    assert segments[0] == segments[1]


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_steps_end_where_the_static_drafter_is_wanted(serving, sampling, streams):
    """What it is asked behind is the chain that native steps had assembled."""
    together, single = serving(True, static=True), serving(False, static=True)
    asked = {}
    for name, one in (("together", together), ("single", single)):
        neural = one.drafting.neural
        found = asked.setdefault(name, [])
        chain = neural.model.chain

        def noted(ask: Lookahead, chain=chain, found=found):
            found.append((ask.tokens[-1], ask.position, ask.limit))
            return chain(ask)

        neural.model.chain = noted
        # neither when it is asked nor for how much depends on what anything takes
        neural.terms = lambda stream, first, rate: (float("inf"), 0.0)
        neural.aim = lambda reach, rate: None
    for turn in range(2):
        submits = [
            request(
                turn * streams + one,
                list(range(7 + one, 30)),
                max_tokens=60 + one,
                sampling=sampling,
            )
            for one in range(streams)
        ]
        for ours, theirs in zip(together.at_once(*submits), single.at_once(*submits), strict=True):
            assert ours.tokens == theirs.tokens
            assert ours.stats.drafted == theirs.stats.drafted
            assert ours.stats.accepted == theirs.stats.accepted
    assert asked["together"] == asked["single"]
    assert len(asked["single"]) > 4
    assert together.drafting.sources() == single.drafting.sources()


@pytest.mark.parametrize(("most", "streams"), [(5, 1), (60, 1), (60, 3), (700, 1)])
def test_the_states_that_chose_its_tokens_are_kept(serving, decoders, monkeypatch, most, streams):
    """For whoever carries them on: of the last so many, of a long stream the last 512."""
    together, single = serving(True), serving(False)
    for decoder in decoders[:2]:
        decoder.keep_states()
    kept = []
    for one in (together, single):
        drafters = one.drafting.controller
        end = drafters.end

        def noted(stream, end=end):
            found = stream.states.of(0, len(stream.tokens)) if len(stream.tokens) < 500 else None
            kept.extend([found, stream.states.of(len(stream.tokens) - 400, len(stream.tokens))])
            end(stream)

        monkeypatch.setattr(drafters, "end", noted)
        one.at_once(*(request(n, list(range(7 + n, 30)), max_tokens=most) for n in range(streams)))
    assert len(kept) == 4 * streams
    for ours, theirs in zip(kept[: 2 * streams], kept[2 * streams :], strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.any(axis=1).sum() == min(most, 400)
            np.testing.assert_array_equal(ours, theirs)
    for decoder in decoders[:2]:
        decoder._states = None
        native().keep_states(decoder.handle, None)


def test_steps_end_where_a_message_waits(serving):
    together = serving(True)
    together.interrupt.value = 1
    output = together(request(1, [5, 6, 7], max_tokens=30, drafting=False))[0]
    assert len(output.tokens) == 30
    assert set(together.calls) == {1}
    together.interrupt.value = 0
    together.calls.clear()
    assert together(request(2, [5, 6, 7], max_tokens=30, drafting=False))[0].tokens == output.tokens
    assert max(together.calls) > 1


def test_whoever_reads_gets_the_output_in_pieces(serving, monkeypatch):
    together = serving(True)
    pieces = []
    emit = together.engine._emit

    def noted(message):
        if isinstance(message, Tokens):
            pieces.append(len(message.tokens) // 4)
        emit(message)

    monkeypatch.setattr(together.engine, "_emit", noted)
    together.at_once(*(request(n, [5, 6, 7], max_tokens=50, drafting=False) for n in range(2)))
    assert sum(pieces) == 100
    assert max(pieces) <= MOST_STEPS


def test_resting_streams_say_so(serving, monkeypatch):
    """Steps that are plain because drafting rests are on record as such."""
    together = serving(True)
    monkeypatch.setattr(together.engine.planning, "_costs", together.engine.costs)
    monkeypatch.setattr(Pace, "_rest", lambda self: 5)
    monkeypatch.setattr(Pace, "settled", lambda self, *told: setattr(self, "net", -0.1))
    together(request(1, list(range(100, 130)), max_tokens=90, sampling=SAMPLINGS[2]))
    told = together.engine.planning.explain(1)
    assert len(told) == together.outputs[1].stats.steps
    attempts = [at for at, one in enumerate(told) if one != RESTING]
    # the first call, whose steps are judged once it is over, then attempts and rests in turn
    late = [at for at in attempts if at > MOST_STEPS]
    assert len(late) > 3
    gaps = {b - a for a, b in itertools.pairwise(late)}
    assert gaps == {1, 6}, "after an attempt that brought something the next follows at once"


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("streams", [1, 3])
def test_a_damaged_model_is_told(serving, tmp_path, streams, last):
    """Whatever it says after the first token is no number, or only what it says of the ``last``
    token of the vocabulary."""
    together = serving(True)
    folder = tiny_checkpoint(tmp_path / "damaged")
    tensors = load_file(folder / "model.safetensors")
    if last:
        head = "lm_head.weight" if "lm_head.weight" in tensors else "model.embed_tokens.weight"
        tensors[head][-1] = np.nan
    else:
        tensors["model.norm.weight"][:] = np.nan
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    options = LoadOptions(device="cpu", weight_format="bf16", slots=4, threads=1)
    decoder = load_decoder(find_model(str(folder)), options).decoder
    together.engine._multistep = MultiStep.on(decoder, fastest_choose(), None)
    for output in together.at_once(*(request(n, [5, 6, 7], max_tokens=30) for n in range(streams))):
        assert output.reason == "error"
        assert "no number" in output.message
        # what it said before all of them decoded came from the model that is whole
        assert 1 <= len(output.tokens) <= streams
    decoder.close()
