"""In a prompt that asks to fill in the middle, drafters look back to what the output continues."""

from __future__ import annotations

import numpy as np
import pytest
from atlasd_kernels.cpu.text import text_library
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft.drafter import StreamView
from atlasd.draft.mixture import Mixture
from atlasd.draft.native import NativeMixture
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.recycle import Recycle

VOCAB, PREFIX, SUFFIX, MIDDLE = 100, 97, 98, 99
LIBRARY = text_library()
TEXT = st.lists(st.integers(0, 8), min_size=1, max_size=120)


def mixture(native: bool) -> Mixture:
    index, recycle = PositionIndex(1 << 20), Recycle(VOCAB, [3])
    if not native:
        return Mixture(index, recycle)
    if LIBRARY is None:
        pytest.skip("the native library was not built here")
    return NativeMixture(index, recycle, LIBRARY)


def in_the_middle(prefix: list[int], suffix: list[int]) -> StreamView:
    prompt = [PREFIX, *prefix, SUFFIX, *suffix, MIDDLE]
    return StreamView(1, prompt, len(prompt), "r", prefix_end=1 + len(prefix))


@pytest.mark.parametrize("native", [False, True])
@settings(max_examples=40, deadline=None)
@given(TEXT, TEXT, TEXT, TEXT, st.integers(1, 5))
def test_drafts_are_those_of_the_same_text_without_a_middle(
    native: bool,
    file: list[int],
    prefix: list[int],
    suffix: list[int],
    output: list[int],
    stride: int,
) -> None:
    turned = [SUFFIX, *suffix, MIDDLE, PREFIX, *prefix]
    asked = in_the_middle(prefix, suffix), StreamView(1, turned, len(turned), "r")
    drafters = mixture(native), mixture(native)
    for _ in range(2):  # the second request begins from the first one's segments
        for drafter, stream in zip(drafters, asked, strict=True):
            drafter.positions.index.put("file", "r", "file", np.array(file, np.int32))
            drafter.begin(stream)
        for at in range(0, len(output), stride):
            one, other = (d.propose(s, [], 16) for d, s in zip(drafters, asked, strict=True))
            assert one.tokens == other.tokens
            assert one.features == other.features
            for drafter, stream in zip(drafters, asked, strict=True):
                new = output[at : at + stride]
                stream.tokens += new
                drafter.observe(stream, new, None)
        for drafter, stream in zip(drafters, asked, strict=True):
            drafter.end(stream)
            del stream.tokens[stream.prompt_length :]


@pytest.mark.parametrize("native", [False, True])
def test_the_first_token_behind_the_mark_is_found_where_the_text_stood_before(native: bool) -> None:
    drafter = mixture(native)
    text = list(range(40))
    drafter.positions.index.put("file", "r", "file", np.array(text, np.int32))
    stream = in_the_middle(text[:20], [80, 81])
    drafter.begin(stream)
    drafter.least_reach = 0.0
    assert drafter.propose(stream, [], 8).tokens == text[20:28]


def test_the_order_keeps_every_token() -> None:
    stream = in_the_middle([1, 2, 3], [4, 5])
    stream.tokens += [6, 7]
    assert stream.since(0) == [SUFFIX, 4, 5, MIDDLE, PREFIX, 1, 2, 3, 6, 7]
    assert stream.last(4) == [2, 3, 6, 7]
    assert stream.since(stream.prompt_length + 1) == [7]
    assert stream.last(1000) == stream.since(0)


@pytest.mark.parametrize("end", [0, -3, 8, 9])
def test_a_prompt_without_a_middle_is_as_it_is(end: int) -> None:
    stream = StreamView(1, [1, 2, 3, 4, 5, 6, 7, 8], 8, prefix_end=end)
    assert stream.since(2) == [3, 4, 5, 6, 7, 8]
