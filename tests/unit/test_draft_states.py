"""States of a stream, against a dictionary."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atlasd.draft.states import ROOM, States


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 700)), max_size=8),
    st.integers(0, 1500),
    st.integers(1, 40),
)
def test_the_last_states_are_known_and_others_are_zero(
    puts: list[tuple[int, int]], begin: int, count: int
) -> None:
    """Streams only grow: each ``put`` begins where the last ended, or some tokens further on."""
    states, naive, at = States(3), dict[int, np.ndarray](), 0
    draw = np.random.default_rng(0)
    for gap, size in puts:
        at += gap
        rows = draw.standard_normal((size, 3)).astype(np.float32)
        states.put(at, rows)
        naive |= {at + i: row for i, row in enumerate(rows)}
        at += size
    recent = {index: row for index, row in naive.items() if index >= at - ROOM}
    found = states.of(begin, begin + count)
    wanted = [recent.get(index) for index in range(begin, begin + count)]
    if found is None:
        assert all(row is None for row in wanted)
        return
    for row, expected in zip(found, wanted, strict=True):
        # What a later token has not taken the place of may be known for longer.
        if expected is not None:
            assert np.array_equal(row, expected)


def test_nothing_is_known_of_tokens_that_were_not_put() -> None:
    states = States(2)
    assert states.of(0, 3) is None
    states.put(5, np.ones((2, 2), np.float32))
    known = states.of(4, 8)
    assert known is not None
    assert known.tolist() == [[0, 0], [1, 1], [1, 1], [0, 0]]
    states.put(5 + ROOM, np.ones((1, 2), np.float32))
    assert states.of(5, 6) is None
