"""The positions drafter, and its index on disk."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft import positions_files
from atlasd.draft.drafter import StreamView
from atlasd.draft.positions import Positions
from atlasd.draft.positions_index import PositionIndex


def ids(tokens: list[int]) -> np.ndarray:
    return np.array(tokens, np.int32)


def stream_of(tokens: list[int], repository: str | None = "r", number: int = 1) -> StreamView:
    return StreamView(number, list(tokens), len(tokens), repository, "python")


def verify(drafter: Positions, stream: StreamView, tokens: list[int]) -> None:
    stream.tokens.extend(tokens)
    drafter.observe(stream, tokens, None)


def test_continues_a_file_of_the_repository() -> None:
    drafter = Positions(PositionIndex(1 << 20))
    text = list(range(100, 200))
    drafter.index.put("f", "r", "file", ids(text))
    stream = stream_of([1, 2, 3, *text[:10]])
    drafter.begin(stream)
    draft = drafter.propose(stream, [], 16)
    assert draft.tokens == text[10:26]
    assert len(draft.features) == 16
    assert all(0 <= bucket < 256 for features in draft.features for bucket in features)


def test_continues_after_tokens_that_are_only_drafted() -> None:
    drafter = Positions(PositionIndex(1 << 20))
    text = list(range(100, 200))
    drafter.index.put("f", "r", "file", ids(text))
    stream = stream_of([1, 2, 3])
    drafter.begin(stream)
    assert drafter.propose(stream, [], 8).tokens == []
    assert drafter.propose(stream, text[:3], 8).tokens == text[3:11]


def test_repeats_the_streams_own_output() -> None:
    drafter = Positions(PositionIndex(1 << 20))
    stream = stream_of([9, 8, 7])
    drafter.begin(stream)
    output = [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
    for token in output:
        verify(drafter, stream, [token])
    assert drafter.propose(stream, [], 4).tokens == [4, 5, 6, 7]


def test_the_majority_of_recent_places_leads_where_they_disagree() -> None:
    drafter = Positions(PositionIndex(1 << 20))
    for number, follower in enumerate((50, 60, 60, 60)):
        drafter.index.put(str(number), "r", "file", ids([1, 2, 3, 4, follower, follower, 7]))
    stream = stream_of([1, 2, 3, 4])
    drafter.begin(stream)
    assert drafter.propose(stream, [], 3).tokens == [60, 60, 7]


def test_takes_up_the_thread_again_behind_a_replaced_token() -> None:
    drafter = Positions(PositionIndex(1 << 20))
    text = list(range(100, 180))
    drafter.index.put("f", "r", "file", ids(text))
    stream = stream_of(text[:20])
    drafter.begin(stream)
    assert drafter.propose(stream, [], 8).tokens == text[20:28]
    verify(drafter, stream, [*text[20:24], 5])  # 5 stands where the file has text[24]
    assert drafter.propose(stream, [], 8).tokens == text[25:33]


def test_what_was_decoded_is_drafted_from_in_later_streams() -> None:
    drafter = Positions(PositionIndex(1 << 20))
    first = stream_of([1, 2, 3])
    drafter.begin(first)
    output = list(range(300, 340))
    verify(drafter, first, output)
    drafter.end(first)
    second = stream_of([5, 6, *output[:6]], number=2)
    drafter.begin(second)
    assert drafter.propose(second, [], 10).tokens == output[6:16]


def test_nothing_of_an_untrusted_stream_outlives_it() -> None:
    drafter = Positions(PositionIndex(1 << 20))
    stream = stream_of(list(range(40)))
    stream.learn = False
    drafter.begin(stream)
    verify(drafter, stream, list(range(300, 340)))
    drafter.end(stream)
    assert list(drafter.index) == []
    assert drafter.index.arena.free == drafter.index.arena.capacity


def test_a_prompt_like_an_earlier_one_costs_only_its_changed_window() -> None:
    drafter = Positions(PositionIndex(8 << 20))
    prompt = list(range(5000))
    first = stream_of(prompt)
    drafter.begin(first)
    drafter.end(first)
    used = drafter.index.arena.used
    second = stream_of([*prompt[:4000], 1, 2, *prompt[4000:]], number=2)
    drafter.begin(second)
    assert drafter.index.arena.used - used < 200


def test_credit_goes_to_the_segment_that_was_drafted_from() -> None:
    drafter = Positions(PositionIndex(1 << 20))
    segment = drafter.index.put("f", "r", "file", ids(list(range(50))))
    stream = stream_of(list(range(10)))
    drafter.begin(stream)
    draft = drafter.propose(stream, [], 8)
    drafter.settle(draft, 6)
    assert segment.credit == 6


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 60), min_size=30, max_size=200), min_size=1, max_size=5),
    st.lists(st.integers(0, 60), min_size=1, max_size=150),
    st.randoms(use_true_random=False),
)
def test_any_interleaving_of_streams_drafts_only_real_continuations(
    files: list[list[int]], text: list[int], random: object
) -> None:
    drafter = Positions(PositionIndex(1 << 20))
    for number, tokens in enumerate(files):
        drafter.index.put(str(number), "r", "file", ids(tokens))
    streams = [stream_of(text[: 1 + n * 7], number=n) for n in range(3)]
    for stream in streams:
        drafter.begin(stream)
    everything = [*files, text]
    for at in range(0, len(text), 3):
        for stream in streams:
            draft = drafter.propose(stream, [], 12)
            if draft.tokens:
                pair = (stream.tokens[-1], draft.tokens[0])
                known = [*everything, *(s.tokens for s in streams)]
                follows = any(pair in pairwise(t) for t in known)
                anywhere = any(draft.tokens[0] in t for t in known)
                assert follows or anywhere
            verify(drafter, stream, text[at : at + 3])
    for stream in streams:
        drafter.end(stream)


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(st.lists(st.integers(0, 30), max_size=300), min_size=1, max_size=6),
    edited=st.lists(st.integers(0, 30), max_size=100),
)
def test_an_index_on_disk_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[int]], edited: list[int]
) -> None:
    path = tmp_path_factory.mktemp("index") / "positions.index"
    index = PositionIndex(1 << 20)
    for number, text in enumerate(texts):
        index.put(str(number), "r", "file", ids(text))
    index.put("0", "r", "file", ids(texts[0][:50] + edited))
    index.drop("1", "r")
    positions_files.save(index, path, "tokenizer")
    copy = PositionIndex(1 << 20)
    assert positions_files.load(copy, path, "tokenizer")
    kept = {s.name: s for s in index if s.pieces}
    assert {s.name for s in copy} == set(kept)
    for segment in copy:
        assert copy.read(segment).tolist() == index.read(kept[segment.name]).tolist()
    copy.put("new", "r", "file", ids(list(range(100))))
    for segment in copy:
        if segment.name != "new":
            assert copy.read(segment).tolist() == index.read(kept[segment.name]).tolist()


def test_an_index_of_another_tokenizer_or_a_damaged_one_is_ignored(tmp_path: Path) -> None:
    path = tmp_path / "positions.index"
    index = PositionIndex(1 << 20)
    index.put("f", "r", "file", ids(list(range(500))))
    positions_files.save(index, path, "one")
    assert not positions_files.load(PositionIndex(1 << 20), path, "other")
    path.write_bytes(path.read_bytes()[:-10])
    assert not positions_files.load(PositionIndex(1 << 20), path, "one")
    path.write_bytes(b"\x00\xff")
    assert not positions_files.load(PositionIndex(1 << 20), path, "one")
    assert not positions_files.load(PositionIndex(1 << 20), tmp_path / "missing", "one")
    assert path.stat().st_mode & 0o077 == 0
