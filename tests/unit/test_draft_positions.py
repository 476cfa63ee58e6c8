"""The drafter over all text seen, and the position index on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft import positions_files
from atlasd.draft.drafter import StreamView
from atlasd.draft.mixture import Mixture
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.recycle import Recycle


def ids(tokens: list[int]) -> np.ndarray:
    return np.array(tokens, np.int32)


def stream_of(tokens: list[int], repository: str | None = "r", number: int = 1) -> StreamView:
    return StreamView(number, list(tokens), len(tokens), repository, "python")


def text_drafter(budget_bytes: int = 1 << 20) -> Mixture:
    return Mixture(PositionIndex(budget_bytes), Recycle(vocab_size=10_000))


def verify(drafter: Mixture, stream: StreamView, tokens: list[int]) -> None:
    stream.tokens.extend(tokens)
    drafter.observe(stream, tokens, None)


def test_continues_a_file_of_the_repository() -> None:
    drafter = text_drafter()
    text = list(range(100, 200))
    drafter.positions.index.put("f", "r", "file", ids(text))
    stream = stream_of([1, 2, 3, *text[:10]])
    drafter.begin(stream)
    draft = drafter.propose(stream, [], 16)
    assert draft.tokens == text[10:26]
    assert len(draft.features) == 16
    assert all(0 <= bucket < 256 for features in draft.features for bucket in features)


def test_continues_after_tokens_that_are_only_drafted() -> None:
    drafter = text_drafter()
    text = list(range(100, 200))
    drafter.positions.index.put("f", "r", "file", ids(text))
    stream = stream_of([1, 2, 3])
    drafter.begin(stream)
    assert drafter.propose(stream, [], 8).tokens == []
    drafter.least_reach = 0.0
    draft = drafter.propose(stream, text[:3], 8)
    assert draft.tokens == text[3:11]
    assert draft.parts == (("positions", 8),)


def test_repeats_the_streams_own_output() -> None:
    drafter = text_drafter()
    stream = stream_of([9, 8, 7])
    drafter.begin(stream)
    output = [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
    for token in output:
        verify(drafter, stream, [token])
    assert drafter.propose(stream, [], 4).tokens == [4, 5, 6, 7]


def test_the_majority_of_recent_places_leads_where_they_disagree() -> None:
    drafter = text_drafter()
    for number, follower in enumerate((60, 60, 60, 50)):
        drafter.positions.index.put(
            str(number), "r", "file", ids([1, 2, 3, 4, follower, follower, 7])
        )
    stream = stream_of([1, 2, 3, 4])
    drafter.begin(stream)
    assert drafter.propose(stream, [], 3).tokens == [60, 60, 7]


def test_successors_of_the_last_tokens_are_drafted_where_no_place_matches() -> None:
    drafter = text_drafter()
    drafter.recycle.add(ids([7, 8, 9, 7, 8, 9, 7, 8, 9]))
    stream = stream_of([1, 7])
    drafter.begin(stream)
    draft = drafter.propose(stream, [], 2)
    assert draft.tokens == [8, 9]
    assert draft.parts == (("recycle", 2),)


def test_takes_up_the_thread_again_behind_a_replaced_token() -> None:
    drafter = text_drafter()
    text = list(range(100, 180))
    drafter.positions.index.put("f", "r", "file", ids(text))
    stream = stream_of(text[:20])
    drafter.begin(stream)
    assert drafter.propose(stream, [], 8).tokens == text[20:28]
    verify(drafter, stream, [*text[20:24], 5])  # 5 stands where the file has text[24]
    drafter.least_reach = 0.0
    assert drafter.propose(stream, [], 8).tokens == text[25:33]


def test_a_prediction_is_followed_from_its_first_token_and_past_its_edits() -> None:
    drafter = text_drafter()
    drafter.least_reach = 0.0
    expected = list(range(100, 200))
    stream = stream_of([1, 2, 3, 4, 5])
    stream.prediction = ids(expected)
    drafter.begin(stream)
    assert drafter.propose(stream, [], 8).tokens == expected[:8]
    verify(drafter, stream, expected[:8])
    assert drafter.propose(stream, [], 8).tokens == expected[8:16]
    verify(drafter, stream, [*expected[8:16], 7, 8, 9])  # three tokens for one
    verify(drafter, stream, [expected[17]])
    assert drafter.propose(stream, [], 4).tokens == expected[18:22]
    drafter.end(stream)
    drafter.positions.finish()
    assert "prediction 1" not in {segment.name for segment in drafter.positions.index}


def test_a_stream_that_is_over_is_put_away_later_and_drafted_from_at_once() -> None:
    drafter = text_drafter()
    first, second = stream_of([1, 2, 3]), stream_of([5, 6, *range(300, 306)], number=2)
    drafter.begin(first)
    drafter.begin(second)
    verify(drafter, first, list(range(300, 340)))
    drafter.end(first)
    kinds = [segment.kind for segment in drafter.positions.index]
    assert "output" not in kinds
    assert drafter.propose(second, [], 10).tokens == list(range(306, 316))
    assert drafter.positions.finish()
    kinds = [segment.kind for segment in drafter.positions.index]
    assert "output" in kinds
    assert drafter.propose(second, [], 10).tokens == list(range(306, 316))
    assert not drafter.positions.finish()


def test_what_was_decoded_is_drafted_from_in_later_streams() -> None:
    drafter = text_drafter()
    first = stream_of([1, 2, 3])
    drafter.begin(first)
    output = list(range(300, 340))
    verify(drafter, first, output)
    drafter.end(first)
    second = stream_of([5, 6, *output[:6]], number=2)
    drafter.begin(second)
    assert drafter.propose(second, [], 10).tokens == output[6:16]


def test_nothing_of_an_untrusted_stream_outlives_it() -> None:
    drafter = text_drafter()
    stream = stream_of(list(range(40)))
    stream.learn = False
    drafter.begin(stream)
    verify(drafter, stream, list(range(300, 340)))
    drafter.end(stream)
    assert list(drafter.positions.index) == []
    assert not drafter.positions.index.sweep()
    assert drafter.positions.index.arena.free == drafter.positions.index.arena.capacity


def test_a_prompt_like_an_earlier_one_costs_only_its_changed_window() -> None:
    drafter = text_drafter(8 << 20)
    prompt = list(range(5000))
    first = stream_of(prompt)
    drafter.begin(first)
    drafter.end(first)
    used = drafter.positions.index.arena.used
    second = stream_of([*prompt[:4000], 1, 2, *prompt[4000:]], number=2)
    drafter.begin(second)
    assert drafter.positions.index.arena.used - used < 200


def test_credit_goes_to_the_segment_that_was_drafted_from() -> None:
    drafter = text_drafter()
    segment = drafter.positions.index.put("f", "r", "file", ids(list(range(50))))
    stream = stream_of(list(range(10)))
    drafter.begin(stream)
    draft = drafter.propose(stream, [], 8)
    drafter.settle(draft, 6)
    assert segment.credit == 6


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 60), min_size=30, max_size=200), min_size=1, max_size=5),
    st.lists(st.integers(0, 60), min_size=1, max_size=150),
)
def test_interleaved_streams_draft_only_what_once_followed(
    files: list[list[int]], text: list[int]
) -> None:
    drafter = text_drafter()
    for number, tokens in enumerate(files):
        drafter.positions.index.put(str(number), "r", "file", ids(tokens))
    streams = [stream_of(text[: 1 + n * 7], number=n) for n in range(3)]
    for stream in streams:
        drafter.begin(stream)
    for at in range(0, len(text), 3):
        for stream in streams:
            draft = drafter.propose(stream, [], 12)
            known = [*files, *(s.tokens for s in streams)]
            assert len(draft.tokens) == len(draft.features) <= 12
            assert all(any(token in one for one in known) for token in draft.tokens)
            verify(drafter, stream, text[at : at + 3])
    for stream in streams:
        drafter.end(stream)
        assert drafter.positions.index.arena.used <= drafter.positions.index.arena.capacity


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
    kept = {s.name: s for s in index if s.pieces}
    assert positions_files.load(copy, path, "tokenizer") == bool(kept)
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


def test_memory_for_the_next_texts_is_asked_for_before_they_come():
    """Every page that the next prompts lie in was written to in an idle moment."""
    index = PositionIndex(64 << 20)
    index.put("a", "r", "file", np.arange(3000, dtype=np.int32) % 50, None)
    arrays = [index.tokens, index.run_of, *(table.previous for table in index.tables)]
    for array in arrays:
        array[index.arena.used :] = 7
    index.ask_for_memory()
    for array in arrays:
        written = np.flatnonzero(array[index.arena.used :] == 0)
        assert len(written) >= 4
        assert written[-1] >= 40_000
    found = index.read(index.segments["r", "a"])
    np.testing.assert_array_equal(found, np.arange(3000) % 50)
