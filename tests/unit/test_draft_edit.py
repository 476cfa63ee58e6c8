"""Pointers into text that is being rewritten, and rules for what is written for what."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft.drafter import StreamView
from atlasd.draft.edit import AGAIN, MAX_GAP, NEAR, WINDOW, Pointer, Rules
from atlasd.draft.mixture import Mixture
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.recycle import Recycle
from atlasd.draft.segments import Segment

TEXT = list(range(1000, 1300))
NEW = st.lists(st.integers(1, 900), max_size=12, unique=True)


def pointer(run: int = 40) -> Pointer:
    return Pointer(Segment("old", "r", "file"), 0, run, run)


def follow(one: Pointer, tokens: list[int], rules: Rules, stride: int) -> int:
    """Move over tokens in steps; returns where in TEXT the pointer reads on."""
    for at in range(0, len(tokens), stride):
        moved = one.move(TEXT[one.position :], tokens[at : at + stride], rules)
        assert moved >= 0
        one.position += moved
    return one.position + one.skipped


@given(st.integers(10, 60), st.integers(0, 30), NEW, st.integers(1, 9))
def test_in_step_again_after_an_insertion_a_deletion_or_a_replacement(
    at: int, removed: int, added: list[int], stride: int
) -> None:
    one, rules = pointer(), Rules()
    written = [*TEXT[:at], *added, *TEXT[at + removed :][: AGAIN + 1]]
    assert follow(one, written, rules, stride) == at + removed + AGAIN + 1
    assert not one.gap
    assert one.synced >= AGAIN
    rule = rules.at(TEXT, at)
    if 1 <= removed <= 4 and 1 <= len(added) <= 4:
        assert rule is not None
        assert list(rule.new) == added
    else:
        assert rule is None


@given(st.lists(st.integers(2, 9), min_size=1, max_size=12), st.integers(1, 4), st.integers(1, 9))
def test_in_step_again_after_every_line_when_all_lines_are_indented_anew(
    lines: list[int], spaces: int, stride: int
) -> None:
    """Every line's first token, the white space, is others now."""
    one, rules = pointer(64), Rules()
    written: list[int] = []
    at = 0
    for size in lines:
        written += [*range(1, spaces + 1), *TEXT[at + 1 : at + 1 + size]]
        at += 1 + size
    one.run = 1 << 12  # a run that this many gaps do not use up
    one.synced = 64
    reads = follow(one, written, rules, max(stride, len(written)))
    assert reads == at
    assert not one.gap


@given(st.integers(0, 200), st.lists(st.integers(1, 900), min_size=1, max_size=20))
def test_a_pointer_never_leaves_its_text_and_its_gap_is_bounded(at: int, tokens: list[int]) -> None:
    one = pointer()
    one.position = at
    for token in tokens:
        moved = one.move(TEXT[one.position :][:WINDOW], [token], None)
        if moved < 0:
            return
        one.position += moved
        assert 0 <= one.position + one.skipped <= len(TEXT)
        assert len(one.gap) <= MAX_GAP
    assert one.skipped <= NEAR + 1


def test_text_that_is_never_taken_up_again_is_given_up() -> None:
    one = pointer()
    moves = [one.move(TEXT, [1 + n], None) for n in range(MAX_GAP + 1)]
    assert moves[-1] == -1


def ids(tokens: list[int]) -> np.ndarray:
    return np.array(tokens, np.int32)


def test_a_renamed_variable_is_drafted_by_its_new_name_once_that_has_held() -> None:
    old_name, new_name = 7, 8
    # Different words around every use, so that nothing but the rule knows the new name.
    uses = [[100 + 10 * n + k for k in range(6)] for n in range(8)]
    old = [token for use in uses for token in (*use, old_name)]
    drafter = Mixture(PositionIndex(1 << 20), Recycle(1000))
    drafter.positions.index.put("f", "r", "file", ids(old))
    stream = StreamView(1, list(old[:6]), 6, "r", "python")
    drafter.begin(stream)
    drafter.least_reach = 0.0
    right = []
    for use in uses[1:]:
        for token in (new_name, *use):
            draft = drafter.propose(stream, [], 8).tokens
            if token == new_name:
                right.append(draft[:1] == [new_name])
            stream.tokens.append(token)
            drafter.observe(stream, [token], None)
    assert not right[0]
    assert right[-2:] == [True, True]


@settings(max_examples=30)
@given(st.lists(st.tuples(NEW, NEW), max_size=100))
def test_rules_are_few_and_short(notes: list[tuple[list[int], list[int]]]) -> None:
    rules = Rules()
    for old, new in notes:
        rules.note(old, new)
        if 1 <= len(old) <= 4 and 1 <= len(new) <= 4:
            rule = rules.at(old, 0)
            assert rule is not None
            assert (list(rule.old), list(rule.new)) == (old, new)
            assert 0.0 < rule.share < 1.0
    assert len(rules.by_first) <= 64


@pytest.mark.parametrize("trusted", [True, False])
def test_nothing_of_an_untrusted_stream_becomes_a_rule(trusted: bool) -> None:
    drafter = Mixture(PositionIndex(1 << 20), Recycle(2000))
    drafter.positions.index.put("f", "r", "file", ids(TEXT[:60]))
    stream = StreamView(1, TEXT[:12], 12, "r", "python", learn=trusted)
    drafter.begin(stream)
    for token in [*TEXT[12:20], 5, *TEXT[21:30]]:
        drafter.propose(stream, [], 8)
        stream.tokens.append(token)
        drafter.observe(stream, [token], None)
    assert bool(drafter.positions.rules.by_first) == trusted
    drafter.end(stream)
