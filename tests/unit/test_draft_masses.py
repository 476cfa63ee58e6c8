"""What the votes for a token count, and how that is learned, against the definition."""

from __future__ import annotations

from collections import Counter
from math import exp, log

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atlasd.draft.drafter import StreamView
from atlasd.draft.masses import LOST, PLACE_KINDS, Masses, Vote
from atlasd.draft.mixture import Mixture
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.recycle import VOTE_KINDS, Recycle

TOKENS = st.integers(0, 3)
TABLES = st.tuples(TOKENS, st.integers(0, VOTE_KINDS - 1)).map(lambda made: Vote(*made))
PLACES = st.tuples(
    TOKENS,
    st.integers(VOTE_KINDS, VOTE_KINDS + PLACE_KINDS - 1),
    st.floats(0.1, 1.0),
    st.integers(0, LOST),
    st.integers(0, 15),
).map(lambda made: Vote(*made))
VOTES = st.lists(TABLES | PLACES, min_size=1, max_size=14)


def log_probability(masses: Masses, votes: list[Vote], token: int) -> float:
    """Of ``token``, or of none of those that are voted for."""
    behind = Counter({None: 1.0})
    for vote, weight in zip(votes, masses.weigh(votes), strict=True):
        behind[vote.token] += weight
    return log(behind[token if token in behind else None] / behind.total())


@given(VOTES, st.integers(0, 4))
def test_what_came_is_likelier_the_next_time(votes: list[Vote], token: int) -> None:
    masses = Masses()
    before = log_probability(masses, votes, token)
    for _ in range(8):
        masses.learn(votes, token)
    assert log_probability(masses, votes, token) >= before - 1e-9
    assert all(0.01 <= value <= 200.0 for value in masses.value)


@given(VOTES, st.integers(0, 4), st.integers(0, 200))
def test_each_number_goes_along_the_gradient_of_the_log_probability(
    votes: list[Vote], token: int, seen: int
) -> None:
    masses, learned = Masses(), Masses()
    learned.seen = [float(seen)] * len(learned.seen)
    learned.learn(votes, token)
    rate = 8.0 / (8.0 + min(seen + 1, 150))
    for number, value in enumerate(masses.value):
        times = learned.seen[number] - seen if seen < 100 else 1.0
        if times != 1.0 or learned.value[number] == value:
            continue  # no vote's, or that of several, one after the other
        if sum(vote.kind == number for vote in votes) > 1:
            continue
        nudged = []
        for way in (-1e-4, 1e-4):
            masses.value[number] = value * exp(way)
            nudged.append(log_probability(masses, votes, token))
        masses.value[number] = value
        gradient = (nudged[1] - nudged[0]) / 2e-4
        if number < VOTE_KINDS + PLACE_KINDS:
            expected = min(200.0, max(0.01, value * exp(gradient * rate)))
            assert np.isclose(learned.value[number], expected, rtol=1e-4)


def test_who_else_votes_for_a_token_counts() -> None:
    masses = Masses()
    alone, agreeing = [Vote(1, 0), Vote(2, 24)], [Vote(1, 0), Vote(1, 24)]
    for _ in range(20):
        masses.learn(agreeing, 1)
        masses.learn(alone, 2)
    together = masses.weigh(agreeing)[0]
    assert together > 2 * masses.weigh(alone)[0]


def test_votes_are_learned_from_up_to_the_token_that_was_wrong() -> None:
    """Places of ever longer matches vote along a draft: their kinds tell how far it was learned."""

    def learned(verified: list[int]) -> int:
        drafter = Mixture(PositionIndex(1 << 20), Recycle(300))
        drafter.least_reach = 0.0
        text = np.arange(100, 180, dtype=np.int32)
        drafter.positions.index.put("f", "r", "file", text)
        stream = StreamView(1, text[:3].tolist(), 3, "r", "python")
        drafter.begin(stream)
        assert drafter.propose(stream, [], 16).tokens == text[3:19].tolist()
        stream.tokens.extend(verified)
        drafter.observe(stream, verified, None)
        return int(sum(drafter.masses.seen[VOTE_KINDS : VOTE_KINDS + PLACE_KINDS]))

    one = learned([5])
    assert one > 0
    assert learned([103, 5]) > one
    assert learned([103, 104, 105, 5]) > learned([103, 5])
    assert learned([103, 5, 105, 106]) == learned([103, 5])
