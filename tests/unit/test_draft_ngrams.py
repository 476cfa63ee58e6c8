"""Keys of n-grams and the chains of positions that have one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.draft import ngrams
from atlasd.draft.ngrams import ORDERS, NgramTable, extend_prefix_hashes, key_of, keys_of


@given(st.lists(st.integers(0, 1 << 20), min_size=1, max_size=100))
def test_rolling_and_bulk_keys_are_the_same(tokens: list[int]) -> None:
    bulk = keys_of(np.array(tokens, np.int32))
    prefix = [0]
    for at, token in enumerate(tokens):
        extend_prefix_hashes(prefix, (token,))
        for index, order in enumerate(ORDERS):
            if at + 1 >= order:
                assert key_of(prefix, index) == int(bulk[index][at])


@given(st.lists(st.integers(0, 30), max_size=200), st.integers(1, 50))
def test_bulk_insertion_gives_the_chains_of_single_insertion(keys: list[int], cut: int) -> None:
    single, bulk = NgramTable(3, 300, bits=4), NgramTable(3, 300, bits=4)
    for position, key in enumerate(keys):
        single.insert(key, position)
    for start in range(0, len(keys), cut):
        bulk.insert_many(np.array(keys[start : start + cut], np.uint64), start)
    assert single.heads.tolist() == bulk.heads.tolist()
    assert single.previous[: len(keys)].tolist() == bulk.previous[: len(keys)].tolist()


@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.integers(0, 59), st.integers(1, 60))
def test_unlinking_leaves_the_chains_of_what_was_never_inserted(
    keys: list[int], start: int, size: int
) -> None:
    start = min(start, len(keys) - 1)
    stop = min(start + size, len(keys))
    table, never = NgramTable(3, 100, bits=16), NgramTable(3, 100, bits=16)
    for position, key in enumerate(keys):
        table.insert(key, position)
        if not start <= position < stop:
            never.insert(key, position)
    table.unlink(np.array(keys[start:stop], np.uint64), start, stop)
    for key in range(4):
        chains = []
        for one in (table, never):
            chain, at = [], one.newest(key)
            while at >= 0 and len(chain) < 24:
                chain.append(at)
                at = one.links[at]
            chains.append(chain)
        assert chains[0] == chains[1]


@pytest.mark.parametrize("grown", [1, 3, 1000])
def test_a_table_that_grows_still_reaches_everything(
    monkeypatch: pytest.MonkeyPatch, grown: int
) -> None:
    monkeypatch.setattr(ngrams, "_GROWN", grown)
    table = NgramTable(3, 5000, bits=4)
    rng = np.random.default_rng(1)
    keys = rng.integers(0, 1 << 32, 4000)
    for position, key in enumerate(keys.tolist()):
        table.reserve(position + 1)
        table.insert(key, position)
    for position, key in enumerate(keys.tolist()):
        at = table.newest(key)
        while at > position:
            at = table.links[at]
        assert at == position
    assert table.slots_of(keys.astype(np.uint64)).tolist() == [
        table._slot(key) for key in keys.tolist()
    ]
    longest = max(walk(table, key) for key in range(1 << 16, 1 << 17))
    assert longest < 40


def walk(table: NgramTable, key: int) -> int:
    """How long the chain of a key is."""
    at, length = table.newest(key), 0
    while at >= 0:
        at, length = table.links[at], length + 1
    return length
