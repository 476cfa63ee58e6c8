"""The native text drafter drafts what the Python one drafts, with the same confidence."""

from __future__ import annotations

import numpy as np
import pytest
from atlasd_kernels.cpu.text import text_library
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft.confidence import Confidence
from atlasd.draft.drafter import StreamView
from atlasd.draft.mixture import FEATURES, PRIOR, Mixture
from atlasd.draft.native import NativeMixture
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.proposals import OpenProposals, Proposal
from atlasd.draft.recycle import Recycle

LIBRARY = text_library()
pytestmark = pytest.mark.skipif(LIBRARY is None, reason="the native library was not built here")

TOKENS = st.integers(2, 60).flatmap(lambda top: st.lists(st.integers(0, top), max_size=250))


LINE_ENDS = [3, 11, 40]


def native(budget_bytes: int = 1 << 20) -> NativeMixture:
    assert LIBRARY is not None
    return NativeMixture(PositionIndex(budget_bytes), Recycle(100, LINE_ENDS), LIBRARY)


class Pair:
    """Both drafters beside each other on the same streams."""

    def __init__(self) -> None:
        self.python = Mixture(PositionIndex(1 << 20), Recycle(100, LINE_ENDS))
        self.native = native()
        self.confidence = Confidence()
        self.confidence.start("text", FEATURES, PRIOR)
        self.views: dict[int, tuple[StreamView, StreamView, OpenProposals]] = {}

    def put(self, name: str, tokens: list[int]) -> None:
        for drafter in (self.python, self.native):
            drafter.positions.index.put(name, "r", "file", np.array(tokens, np.int32))
            drafter.recycle.add(np.array(tokens, np.int32))

    def drop(self, name: str) -> None:
        for drafter in (self.python, self.native):
            drafter.positions.index.drop(name, "r")

    def begin(self, number: int, prompt: list[int]) -> None:
        one, two = (StreamView(number, list(prompt), len(prompt), "r", "python") for _ in range(2))
        self.python.begin(one)
        self.native.begin(two)
        self.views[number] = one, two, OpenProposals(self.confidence.scope("r", "python"))

    def step(self, number: int, new: list[int]) -> None:
        one, two, opened = self.views[number]
        expected, draft = self.python.propose(one, [], 16), self.native.propose(two, [], 16)
        probabilities: list[float] = []
        if expected.tokens:
            probabilities = self.confidence.predict(
                "text",
                opened.scope,
                one.tokens[-1],
                expected.tokens,
                expected.features,
                self.python.least_reach,
            )
            opened.waiting.append(Proposal(expected, one.tokens[-1], [], probabilities))
        assert expected.tokens[: len(draft.tokens)] == draft.tokens
        assert len(probabilities) == len(draft.tokens)
        assert np.allclose(probabilities, draft.probabilities or [], rtol=1e-9)
        assert expected.by_source(len(draft.tokens)) == draft.by_source(len(draft.tokens))
        after = draft.tokens[:2]
        continued = self.native.propose(two, after, 8).tokens
        assert self.python.propose(one, after, 8).tokens[: len(continued)] == continued
        one.tokens.extend(new)
        two.tokens.extend(new)
        opened.settle(new, self.confidence, {})
        self.python.observe(one, new, None)
        self.native.observe(two, new, None)

    def end(self, number: int) -> None:
        one, two, _ = self.views.pop(number)
        self.python.end(one)
        self.native.end(two)


@settings(max_examples=30, deadline=None)
@given(st.lists(TOKENS, min_size=1, max_size=4), TOKENS, TOKENS, st.integers(1, 4))
def test_drafts_and_probabilities_are_the_same(
    files: list[list[int]], prompt: list[int], output: list[int], stride: int
) -> None:
    pair = Pair()
    for number, tokens in enumerate(files):
        pair.put(str(number), tokens)
    for request in range(2):
        pair.begin(1, prompt)
        pair.begin(2, prompt[: len(prompt) // 2])
        for at in range(0, len(output), stride):
            new = output[at : at + stride]
            pair.step(1, new)
            pair.step(2, new)
            if at == len(output) // stride // 2 * stride:
                # Files change while streams run.
                pair.put("0", files[0][: len(files[0]) // 3] + output[:40] + files[0][-20:])
                pair.drop(str(len(files) - 1))
        pair.end(1)
        pair.end(2)
        pair.put("later", output + prompt[:request])
    masses = zip(pair.python.masses_state(), pair.native.masses_state(), strict=True)
    assert all(np.allclose(one, other, rtol=1e-9) for one, other in masses)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 90), min_size=200, max_size=900), max_size=20))
def test_eviction_under_running_streams_is_survived(texts: list[list[int]]) -> None:
    drafter = native(1)  # the least: 4,096 positions
    stream = StreamView(1, list(range(50)), 50, "r", "python")
    drafter.begin(stream)
    for number, tokens in enumerate(texts):
        drafter.positions.index.put(str(number), "r", "file", np.array(tokens, np.int32))
        draft = drafter.propose(stream, [], 32)
        assert all(0 <= token < 100 for token in draft.tokens)
        new = tokens[:60]
        stream.tokens.extend(new)
        drafter.observe(stream, new, None)
    drafter.end(stream)


def spoken() -> tuple[NativeMixture, StreamView]:
    """A drafter, and a stream of repository r that has said enough to be kept."""
    drafter, said = native(), list(range(40, 80))
    stream = StreamView(1, list(range(40)), 40, "r", "python")
    drafter.begin(stream)
    stream.tokens.extend(said)
    drafter.observe(stream, said, None)
    return drafter, stream


@pytest.mark.parametrize("forgotten", ["r", None])
def test_a_stream_whose_repository_is_forgotten_goes_on_and_leaves_nothing(
    forgotten: str | None,
) -> None:
    drafter, stream = spoken()
    index = drafter.positions.index
    index.drop_repository(forgotten)
    other = index.put("other", "s", "file", np.arange(60, 90, dtype=np.int32))
    stream.tokens.extend(range(10))
    drafter.observe(stream, list(range(10)), None)
    assert index.read(other).tolist() == list(range(60, 90))
    drafter.end(stream)
    index.drop_repository(None)
    index.sweep(index.arena.capacity)
    assert index.arena.free == index.arena.capacity


@pytest.mark.parametrize("forgotten", ["r", None])
def test_a_stream_that_is_over_is_forgotten_with_its_repository(forgotten: str | None) -> None:
    """Also while it waits to be put away: nothing of it comes back when that is done."""
    drafter, stream = spoken()
    index = drafter.positions.index
    drafter.end(stream)
    index.drop_repository(forgotten)
    assert drafter.positions.finish()
    assert not index.segments
    index.sweep(index.arena.capacity)
    assert index.arena.free == index.arena.capacity


def test_an_empty_prompt_is_fine() -> None:
    drafter = native()
    stream = StreamView(1, [], 0, None, None)
    drafter.begin(stream)
    assert drafter.propose(stream, [], 8).tokens == []
    for token in (1, 2, 3, 1, 2, 3, 1, 2, 3):
        stream.tokens.append(token)
        drafter.observe(stream, [token], None)
    drafter.least_reach = 0.0
    assert drafter.propose(stream, [], 3).tokens == [1, 2, 3]
    drafter.end(stream)


def test_what_a_stream_beside_it_has_just_verified_is_drafted_at_once() -> None:
    drafter = native()
    prompt = list(range(20, 30))
    one, other = (StreamView(number, list(prompt), len(prompt), "r", "python") for number in (1, 2))
    drafter.begin(one)
    drafter.begin(other)
    said = list(range(50, 62))
    one.tokens += said
    drafter.observe(one, said, None)
    other.tokens += said[:3]
    drafter.observe(other, said[:3], None)
    drafter.least_reach = 0.0
    assert drafter.propose(other, [], 9).tokens == said[3:]
    drafter.end(one)
    drafter.end(other)
