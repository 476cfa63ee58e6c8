"""The position index against a list of lists."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft.arena import Arena
from atlasd.draft.ngrams import LONGEST, ORDERS, extend_prefix_hashes
from atlasd.draft.positions_files import load, save
from atlasd.draft.positions_index import PIECE, PositionIndex
from atlasd.draft.positions_lookup import MAX_MATCH, Context, context_of
from atlasd.draft.segments import Segment

# Few distinct tokens make long and ambiguous matches; many make short and unique ones.
TEXT = st.integers(2, 40).flatmap(lambda top: st.lists(st.integers(0, top), max_size=300))
NAMES = st.sampled_from(["a", "b", "c", "d"])


def context(tokens: list[int]) -> Context:
    prefix = [0]
    extend_prefix_hashes(prefix, tokens[-LONGEST:])
    return context_of(tokens, prefix)


def ids(tokens: list[int]) -> np.ndarray:
    return np.array(tokens, np.int32)


def offset_of(segment: Segment, position: int) -> int:
    offset = 0
    for piece in segment.pieces:
        if piece.start <= position < piece.stop:
            return offset + position - piece.start
        offset += piece.stop - piece.start
    raise AssertionError("position is not live")


def common_suffix(one: list[int], other: list[int]) -> int:
    count = 0
    while count < min(len(one), len(other), MAX_MATCH) and one[-1 - count] == other[-1 - count]:
        count += 1
    return count


def check_lookup(index: PositionIndex, model: dict[str, list[int]], query: list[int]) -> None:
    """Whatever is found is there as described, and the longest match is found."""
    found = index.find(context(query))
    for match in found:
        text = model[match.segment.name]
        offset = offset_of(match.segment, match.position)
        assert match.length == common_suffix(text[: offset + 1], query)
        assert index.continuation(match.segment, match.position, 20) == text[offset + 1 :][:20]
    truth = [
        common_suffix(text[: end + 1], query)
        for text in model.values()
        for end in range(len(text) - 1)
    ]
    longest = max(truth, default=0)
    if longest >= ORDERS[0]:
        order = max(o for o in ORDERS if o <= longest)
        if sum(length >= order for length in truth) <= 4:  # within the walk
            assert max(match.length for match in found) == longest
    else:
        assert found == []


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(NAMES, TEXT), min_size=1, max_size=6), TEXT)
def test_finds_the_longest_match_that_a_scan_finds(
    texts: list[tuple[str, list[int]]], query: list[int]
) -> None:
    index = PositionIndex(1 << 20)
    model = {}
    for name, text in texts:
        index.put(name, "r", "file", ids(text))
        model[name] = text
    for text in [query, *(t[: len(t) // 2] for t in model.values())]:
        if text:
            check_lookup(index, model, text)


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[str, str, int, int, list[int]]]:
    step = st.tuples(
        st.sampled_from(["edit", "edit", "edit", "put", "drop", "append"]),
        NAMES,
        st.integers(0, 300),
        st.integers(0, 40),
        st.lists(st.integers(0, 30), max_size=60),
    )
    return draw(st.lists(step, max_size=25))


@settings(max_examples=30, deadline=None)
@given(TEXT, edits())
def test_edits_appends_and_deletions_keep_text_and_lookups_right(
    start: list[int], steps: list[tuple[str, str, int, int, list[int]]]
) -> None:
    index = PositionIndex(1 << 20)
    model = {"a": start}
    index.put("a", "r", "file", ids(start))
    for action, name, at, removed, added in steps:
        old = model.get(name, [])
        if action == "drop":
            index.drop(name, "r")
            model.pop(name, None)
            continue
        if action == "put":
            text = added
        elif action == "edit":
            text = old[:at] + added + old[at + removed :]
        else:
            segment = index.put(name, "r", "file", ids(old))
            prefix = [0]
            extend_prefix_hashes(prefix, old[-LONGEST:])
            index.append(segment, added, prefix)
            model[name] = old + added
            assert segment.length == len(model[name])
            continue
        index.put(name, "r", "file", ids(text))
        model[name] = text
    for name, text in model.items():
        segment = index.segments["r", name]
        assert index.read(segment).tolist() == text
        for end in {len(text), len(text) // 2, len(text) // 3}:
            if end:
                check_lookup(index, model, text[:end])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.integers(0, 500), min_size=50, max_size=900), max_size=25))
def test_stays_under_its_budget_and_keeps_what_earned_credit(texts: list[list[int]]) -> None:
    index = PositionIndex(1)  # the least it works with: 4,096 positions
    star = index.put("star", "r", "file", ids(list(range(600, 900))))
    star.credit = 1e9
    for number, text in enumerate(texts):
        index.put(str(number), "r", "file", ids(text))
    assert index.arena.used <= index.arena.capacity
    assert index.read(star).tolist() == list(range(600, 900))
    if texts:
        last = index.segments["r", str(len(texts) - 1)]
        assert index.read(last).tolist() == texts[-1]


def test_an_edit_writes_the_window_and_not_the_file() -> None:
    index = PositionIndex(8 << 20)
    text = list(range(20_000))
    segment = index.put("file", "r", "file", ids(text))
    before = index.arena.used
    index.put("file", "r", "file", ids([*text[:9000], 7, 7, 7, *text[9100:]]))
    assert index.arena.used - before <= 3 + 2 * MAX_MATCH
    assert segment.generation == 1


def test_a_long_segment_grows_in_pieces_and_is_the_same_in_the_end() -> None:
    index = PositionIndex(8 << 20)
    text = list(range(3 * PIECE + 100))
    pieces = index.put_in_pieces("long", "r", "file", ids(text))
    sizes = [index.segments["r", "long"].length for _ in pieces]
    assert sizes == [PIECE, 2 * PIECE, 3 * PIECE]
    segment = index.segments["r", "long"]
    assert index.read(segment).tolist() == text
    for at in (PIECE - 1, PIECE + 3, 3 * PIECE + 50):
        match = index.find(context(text[at - 64 : at]))[0]
        assert match.length == MAX_MATCH
        assert index.continuation(segment, match.position, 8) == text[at : at + 8]


@pytest.mark.parametrize("change", ["drop", "put"])
def test_a_segment_that_changes_while_it_grows_grows_no_further(change: str) -> None:
    index = PositionIndex(8 << 20)
    pieces = index.put_in_pieces("long", "r", "file", ids(list(range(4 * PIECE))))
    next(pieces)
    index.drop("long", "r")
    if change == "put":
        index.put("long", "r", "file", ids([1, 2, 3]))
    assert list(pieces) == []
    kept = [index.read(segment).tolist() for segment in index]
    assert kept == ([[1, 2, 3]] if change == "put" else [])


def test_a_deleted_repository_is_not_found_any_more() -> None:
    index = PositionIndex(1 << 20)
    text = list(range(100))
    index.put("one", "r", "file", ids(text))
    index.put("one", "s", "file", ids(text))
    index.drop_repository("r")
    assert {m.segment.repository for m in index.find(context(text[:50]))} == {"s"}
    index.drop_repository(None)
    assert index.find(context(text[:50])) == []


@settings(max_examples=40, deadline=None)
@given(before=st.lists(TEXT, min_size=1, max_size=4), after=TEXT.filter(lambda text: len(text) > 1))
def test_an_index_that_forgot_everything_begins_anew_at_once(
    before: list[list[int]], after: list[int]
) -> None:
    index = PositionIndex(2 << 20)
    for number, text in enumerate(before):
        index.put(str(number), "r", "file", ids(text))
    index.put("0", "r", "file", ids(before[0][:40]))
    used = index.arena.used
    index.drop_repository(None)
    assert not index.sweep(0), "nothing is left for idle time"
    assert index.arena.free == index.arena.capacity
    assert not index.tokens[:used].any(), "what was forgotten is not in memory"
    index.put("a", "r", "file", ids(after))
    check_lookup(index, {"a": after}, after[: len(after) // 2])
    assert index.read(index.segments["r", "a"]).tolist() == after


@pytest.mark.parametrize("stop_early", [False, True])
def test_a_purge_of_one_repository_of_two_is_over_soon_and_leaves_the_other_within_reach(
    stop_early: bool, tmp_path: Path
) -> None:
    """Swept position by position, a large repository took minutes of idle time."""
    draw = np.random.default_rng(3)
    index = PositionIndex(8 << 20)
    kept = {f"k{n}": draw.integers(0, 5000, 900).tolist() for n in range(8)}
    for name, text in kept.items():
        index.put(name, "kept", "file", ids(text))
        index.put(f"p{name}", "purged", "file", ids(draw.integers(9000, 9999, 6000).tolist()))
    index.put("k0", "kept", "file", ids([*kept["k0"][:400], 7, 7, 7, *kept["k0"][420:]]))
    kept["k0"] = [*kept["k0"][:400], 7, 7, 7, *kept["k0"][420:]]
    index.drop_repository("purged")
    assert not (index.tokens[: index.arena.used] >= 9000).any()
    kept["new"] = draw.integers(0, 5000, 300).tolist()
    index.put("new", "kept", "file", ids(kept["new"]))
    index.drop("k7", "kept")
    del kept["k7"]
    if stop_early:
        save(index, tmp_path / "index", "t")
        index = PositionIndex(8 << 20)
        assert load(index, tmp_path / "index", "t")
    sweeps = 1
    while index.sweep():
        sweeps += 1
    assert sweeps < 16
    for text in kept.values():
        for end in (30, 399, 402, 440, len(text) - 1):
            if end < len(text):
                found = index.find(context(text[:end]))
                assert found
                assert index.continuation(found[0].segment, found[0].position, 9) == text[end:][:9]


def test_advancing_walks_over_pieces() -> None:
    index = PositionIndex(1 << 20)
    text = list(range(1000))
    segment = index.put("f", None, "file", ids(text))
    text[500:510] = [1, 2, 3]
    index.put("f", None, "file", ids(text))
    start = segment.pieces[0].start
    for count in (0, 499, 500, 503, 900):
        position = index.advance(segment, start, count)
        assert offset_of(segment, position) == count
    assert index.advance(segment, start, len(text)) == -1


def test_a_place_that_is_used_again_does_not_cut_the_chain_to_older_places() -> None:
    index = PositionIndex(1)  # 4,096 places
    phrase = [1, 2, 3, 4, 5, 6, 7, 8]
    index.put("old", "r", "file", ids([*phrase, 100, 101]))
    index.put("between", "r", "file", ids([*phrase, 200, 201]))
    index.put("new", "r", "file", ids([*phrase, 300, 301]))
    index.drop("between", "r")
    index.put("other", "r", "file", ids(list(range(500, 510))))  # where "between" was
    names = {match.segment.name for match in index.find(context(phrase))}
    assert names == {"old", "new"}


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 20)), min_size=5, max_size=60))
def test_dropping_and_putting_again_leaves_every_live_place_within_reach(
    steps: list[tuple[int, int]],
) -> None:
    index = PositionIndex(1)
    model: dict[str, list[int]] = {}
    for slot, start in steps:
        name = str(slot)
        if name in model and start % 3 == 0:
            index.drop(name, "r")
            del model[name]
            continue
        model[name] = [*range(start, start + 12), 50 + slot, 60 + slot]
        index.drop(name, "r")
        index.put(name, "r", "file", ids(model[name]))
    for name, text in model.items():
        found = index.find(context(text[:12]))
        same = [n for n, other in model.items() if other[:12] == text[:12]]
        assert {m.segment.name for m in found} >= set(same), name


def test_growing_makes_nobody_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what is copied, as time depends on the machine."""
    index = PositionIndex(16 << 20)
    sizes = [len(index.tables[0].heads)]
    rng = np.random.default_rng(1)
    for number in range(100):
        index.put(str(number), "r", "file", rng.integers(0, 1 << 20, 3000).astype(np.int32))
        sizes.append(len(index.tables[0].heads))
    assert sizes[-1] >= 300_000
    assert max(after - before for before, after in itertools.pairwise(sizes)) <= 16_384


def test_a_full_index_makes_room_a_little_at_a_time() -> None:
    index = PositionIndex(4 << 20)
    rng = np.random.default_rng(1)
    freed = []
    for number in range(80):
        text = rng.integers(0, 1 << 20, 4000).astype(np.int32)
        free = index.arena.free
        for _ in index.put_in_pieces(str(number), "r", "file", text):
            freed.append(index.arena.free - free)
            free = index.arena.free
        assert index.read(index.segments["r", str(number)]).tolist() == text.tolist()
    assert sum(more > 0 for more in freed) > 500
    assert max(freed) <= 256
    # A prompt, which cannot wait, drops nothing.
    held = sum(bool(segment.pieces) for segment in index)
    index.put("prompt", "r", "stream", ids(list(range(1000))))
    assert sum(bool(segment.pieces) for segment in index) == held + 1


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=60))
def test_the_arena_never_hands_out_a_position_twice(steps: list[tuple[bool, int]]) -> None:
    arena = Arena(100)
    taken: list[tuple[int, int]] = []
    for take, number in steps:
        if take:
            start = arena.take(number)
            if start is not None:
                taken.append((start, start + number))
        elif taken:
            arena.give(*taken.pop(number % len(taken)))
        covered = [p for start, stop in taken for p in range(start, stop)]
        assert len(covered) == len(set(covered))
        assert arena.free == 100 - len(covered)


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_very_short_texts_are_fine(size: int) -> None:
    index = PositionIndex(1 << 20)
    index.put("f", None, "file", ids([5] * size))
    assert index.find(context([5] * 10)) == []
