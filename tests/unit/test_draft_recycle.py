"""What recycle learns from verified rows, rejected ones too."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft.drafter import StreamView, VerifiedRows
from atlasd.draft.recycle import Recycle

VOCAB = 40


def rows(after: list[int], best: list[int]) -> VerifiedRows:
    top = np.array(best, np.int32)[:, None]
    return VerifiedRows(np.array(after, np.int32), top, np.zeros((len(best), 0), np.float32))


def first(recycle: Recycle, one: int, two: int) -> int:
    return recycle.votes(one, two)[0][0]


def test_a_rejected_row_teaches_what_follows_both_its_contexts() -> None:
    recycle = Recycle(VOCAB)
    stream = StreamView(1, [1, 2, 9], 2)
    # After 2 the draft was 3 4 5; the target said 9 instead of 3, and 14, 15, 16 behind it.
    recycle.observe(stream, [9], rows([2, 3, 4, 5], [9, 14, 15, 16]))
    assert first(recycle, 3, 4) == 15
    assert first(recycle, 4, 5) == 16
    assert first(recycle, 30, 3) == 14
    assert first(recycle, 1, 2) == 9


def test_a_rejected_row_does_not_take_the_place_of_a_pair_that_was_seen() -> None:
    recycle = Recycle(VOCAB)
    recycle.add(np.array([3, 4, 20, 3, 4, 20, 3, 4, 20], np.int32))
    recycle.observe(StreamView(1, [1, 2, 9], 2), [9], rows([2, 3, 4], [9, 14, 15]))
    votes = dict(reversed(recycle.votes(3, 4)))
    assert set(votes) == {15, 20}


def test_where_the_target_samples_its_first_choice_joins_the_vote() -> None:
    recycle = Recycle(VOCAB)
    for drawn in (11, 12, 13):
        stream = StreamView(1, [1, 2, 3, drawn], 2, temperature=1.0)
        recycle.observe(stream, [3, drawn], rows([2, 3], [3, 7]))
    assert 7 in [token for token, _ in recycle.votes(2, 3)]
    assert recycle.votes(2, 3)[0][0] == 13


def test_a_changed_target_overturns_an_old_majority_in_half_the_time() -> None:
    counts = []
    for fade in (False, True):
        recycle = Recycle(VOCAB)
        recycle.add(np.array([3, 4, 20] * 20, np.int32))
        if fade:
            recycle.fade()
        needed = 0
        while recycle.single.usual[4] != 8:
            recycle.observe(StreamView(1, [3, 4, 8], 0), [8], None)
            needed += 1
        counts.append(needed)
    assert counts[1] <= counts[0] / 2 + 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=4),
            st.lists(st.integers(0, VOCAB - 1), max_size=6),
            st.lists(st.integers(0, VOCAB - 1), min_size=12, max_size=12),
        ),
        max_size=20,
    )
)
def test_the_latest_successor_is_that_of_a_plain_dictionary(
    steps: list[tuple[list[int], list[int], list[int]]],
) -> None:
    recycle, latest = Recycle(VOCAB), dict[int, int]()
    tokens = [1, 2]
    for new, rejected, best in steps:
        after = [tokens[-1], *new[:-1], *rejected]
        if rejected:
            # the row of the last verified token read what was rejected there
            after = [tokens[-1], *new[:-1], *rejected]
        tokens += new
        for at in range(len(new)):
            latest[tokens[-len(new) + at - 1]] = new[at]
        choices = [*new, *best][: len(after)]
        for at in range(len(new), len(after)):
            latest[after[at]] = choices[at]
        recycle.observe(StreamView(1, tokens, 0), new, rows(after, choices))
    for token, successor in latest.items():
        assert recycle.single.latest[token] == successor


def test_the_tables_stay_within_sixteen_megabytes_at_a_large_vocabulary() -> None:
    assert Recycle(152_000).nbytes <= 16 << 20


def test_what_the_target_would_say_after_a_text_is_learned_row_by_row() -> None:
    recycle = Recycle(VOCAB)
    recycle.add(np.array([1, 2, 3, 4], np.int32))
    recycle.add_choices(np.array([1, 2, 3, 4], np.int32), np.array([3, 14, 15], np.int32))
    assert first(recycle, 1, 2) == 3
    assert first(recycle, 2, 3) == 14
    assert first(recycle, 3, 4) == 15
    assert first(recycle, 30, 3) == 14
    # Where both said the same, there are two votes for it.
    assert recycle.pair.count.max() == 2
