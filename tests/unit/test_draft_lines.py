"""Successors by line: what a naive model keeps, and what they are for."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft.lines import Line, Lines
from atlasd.draft.successors import KINDS

VOCAB = 12
ENDS = (3, 7)
TEXT = st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=60)


def contexts(tokens: list[int]) -> list[tuple[int, ...]]:
    """Of a text, written down from the description."""
    lines: list[list[int]] = [[]]
    for token in tokens:
        lines[-1].append(token)
        if token in ENDS:
            lines.append([])
    firsts = [-1, -1, *(line[0] for line in lines if line)]
    found: list[tuple[int, ...]] = [(firsts[-1], tokens[-1])]
    if tokens[-1] in ENDS:
        found.append((firsts[-1], firsts[-2], tokens[-1]))
    return found


def tokens_of(lines: Lines, line: Line, last: int) -> dict[bool, set[int]]:
    """The successors, apart by sort of context."""
    found: dict[bool, set[int]] = {False: set(), True: set()}
    for token, kind in lines.votes(line, last):
        found[kind >= KINDS].add(token)
    return found


@settings(max_examples=80, deadline=None)
@given(TEXT, st.lists(TEXT, max_size=3))
def test_the_latest_successor_of_every_context_votes(
    prompt: list[int], new: list[list[int]]
) -> None:
    lines, latest = Lines(VOCAB, ENDS), dict[tuple[int, ...], int]()
    line = lines.begin(np.array(prompt, np.int32), True)
    tokens = list(prompt)
    if len(prompt) > 2:
        for at in range(1, len(prompt)):
            latest |= dict.fromkeys(contexts(prompt[:at]), prompt[at])
    for more in new:
        lines.observe(line, tokens[-1], more, True)
        for token in more:
            latest |= dict.fromkeys(contexts(tokens), token)
            tokens.append(token)
    known = tokens_of(lines, line, tokens[-1])
    for start, context in enumerate(contexts(tokens)):
        expected = latest.get(context)
        assert (expected in known[bool(start)]) if expected is not None else not known[bool(start)]


@settings(max_examples=60, deadline=None)
@given(TEXT, TEXT)
def test_a_file_teaches_what_its_being_written_would(text: list[int], other: list[int]) -> None:
    read, written = Lines(VOCAB, ENDS), Lines(VOCAB, ENDS)
    for part in (text, other):
        read.add(np.array(part, np.int32))
        written.observe(Line(), -1, part, True)
    assert np.array_equal(read.table.latest, written.table.latest)
    assert np.array_equal(read.table.tags, written.table.tags)


def test_what_the_target_would_say_is_learned_in_its_place() -> None:
    lines = Lines(VOCAB, ENDS)
    # 5 1 3 | 6 1 3 | 6: after each but the first token the target said something.
    lines.add_choices(np.array([5, 1, 3, 6, 1], np.int32), np.array([8, 9, 10, 11], np.int32))
    assert tokens_of(lines, lines.after(Line(), [5, 1]), 1)[False] == {8}
    assert tokens_of(lines, lines.after(Line(), [5, 1, 3]), 3) == {False: {9}, True: {9}}
    assert tokens_of(lines, lines.after(Line(), [5, 1, 3, 6]), 6)[False] == {10}
    assert tokens_of(lines, lines.after(Line(), [5, 1, 3, 6, 1]), 1)[False] == {11}


def test_the_indentation_of_the_next_line_is_known_from_the_lines_before() -> None:
    deep, name, colon, end = 5, 6, 3, 7
    lines = Lines(VOCAB, ENDS)
    lines.add(np.array([name, colon, deep, 1, end, deep, 2, end, name, 1, end], np.int32))
    line = lines.after(Line(), [name, colon])
    assert tokens_of(lines, line, colon)[True] == {deep}
    line = lines.after(line, [deep, 8, end])
    assert tokens_of(lines, line, end)[True] == {deep}
    line = lines.after(line, [deep, 9, end])
    assert tokens_of(lines, line, end)[True] == {name}


def test_without_line_ends_nothing_is_said_and_nothing_kept() -> None:
    lines = Lines(VOCAB)
    line = lines.begin(np.array([1, 2, 3, 1, 2, 3], np.int32), True)
    lines.add(np.array([1, 2, 3, 1, 2, 3], np.int32))
    lines.observe(line, 3, [1, 2], True)
    assert lines.votes(line, 2) == []
    assert (lines.table.latest == -1).all()
