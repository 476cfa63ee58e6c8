"""Passages and what is kept of them, against plain lists."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft.states import States
from atlasd.learn.chosen import Chosen
from atlasd.learn.passages import CONTEXT, ROWS, TOP, Passage, of_stream, pack, unpack
from atlasd.learn.reading import passages_of
from atlasd.learn.replay import EVERY, UNSEEN, Replay
from atlasd.learn.warmup import BUDGET, OVERLAP, TEXTS, WarmUp

VOCAB = 500


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 400), st.integers(1, 300))
def test_every_output_token_is_a_row_once(prompt: int, output: int) -> None:
    tokens = np.random.default_rng(prompt).integers(0, VOCAB, prompt + output).tolist()
    rows = []
    for passage in of_stream(tokens, prompt):
        assert 1 <= passage.rows <= ROWS
        assert 1 <= passage.first <= CONTEXT
        assert len(passage.tokens) == passage.first + passage.rows
        assert np.isnan(passage.logprobs).all()
        rows += [
            (*passage.tokens[at : at + 2].tolist(), int(passage.top[at - passage.first + 1, 0]))
            for at in range(passage.first - 1, len(passage.tokens) - 1)
        ]
    start = max(prompt - 1, 1)
    assert rows == list(zip(tokens[start - 1 :], tokens[start:], tokens[start + 1 :], strict=False))


def passage(number: int) -> Passage:
    draw = np.random.default_rng(number)
    rows = int(draw.integers(1, ROWS))
    tokens = draw.integers(0, VOCAB, rows + 3).astype(np.int32)
    top = draw.integers(-1, VOCAB, (rows, TOP)).astype(np.int32)
    chosen = Chosen.of(draw.standard_normal((rows, 5)).astype(np.float32)) if number % 2 else None
    return Passage(tokens, 3, top, draw.random((rows, TOP)).astype(np.float16), chosen)


def test_the_ring_keeps_the_last_the_reservoir_a_sample_of_the_rest() -> None:
    kept = np.zeros(200)
    for seed in range(100):
        replay = Replay(seed, recent=20, older=30)
        items = [passage(number) for number in range(4)] * 50
        items = [Passage(p.tokens, p.first, p.top, p.logprobs) for p in items]
        order = {id(item): number for number, item in enumerate(items)}
        trained = [item for item in items if replay.take(item)]
        unseen = [order[id(item)] for item in replay.unseen]
        assert unseen == [n for n in range(200) if (n + 1) % EVERY == 0][-UNSEEN:]
        assert list(replay.recent) == trained[-20:]
        assert len(replay.older) == 30
        for item in replay.older:
            kept[order[id(item)]] += 1
        assert not {id(p) for p in replay.older} & {id(p) for p in replay.unseen}
    older = [n for n in range(200) if (n + 1) % EVERY][:-20]
    assert kept.sum() == kept[older].sum()
    # uniform: early ones are kept as often as late ones
    first, last = kept[older[:65]].sum(), kept[older[65:]].sum()
    assert first / last == pytest.approx(1.0, abs=0.1)


def test_what_is_sampled_was_never_set_apart_and_memory_is_bounded() -> None:
    replay = Replay(recent=10, older=10)
    for number in range(300):
        replay.take(passage(number))
    unseen = {id(p) for p in replay.unseen}
    assert all(id(replay.sample()) not in unseen for _ in range(300))
    assert len(replay.recent) + len(replay.older) + len(replay.unseen) == 84
    full = Replay()
    for number in range(1200):
        full.take(passage(number % 50))
    assert full.nbytes < 4 << 20
    assert Replay().sample() is None


def test_a_changed_target_leaves_the_newest_alone() -> None:
    replay = Replay(recent=32, older=32)
    for number in range(200):
        replay.take(passage(number))
    newest = list(replay.recent)[-4:]
    replay.age()
    assert list(replay.recent) == newest
    assert not replay.older
    assert not replay.unseen


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 1000), max_size=6))
def test_passages_survive_as_bytes(numbers: list[int]) -> None:
    held = [passage(number) for number in numbers]
    again = unpack(pack(held), VOCAB)
    assert again is not None
    assert len(again) == len(held)
    for one, other in zip(held, again, strict=True):
        assert one.first == other.first
        for name in ("tokens", "top", "logprobs"):
            assert np.array_equal(getattr(one, name), getattr(other, name))
        assert (one.chosen is None) == (other.chosen is None)
        if one.chosen is not None and other.chosen is not None:
            assert np.array_equal(one.chosen.states(), other.chosen.states())


@given(st.integers(0, 1000))
def test_states_are_kept_to_half_a_step(seed: int) -> None:
    states = np.random.default_rng(seed).standard_normal((7, 9)).astype(np.float32) * (1 + seed)
    states[3] = 0
    kept = Chosen.of(states)
    assert not kept.states()[3].any()
    step = np.abs(states).max(axis=1, keepdims=True) / 127
    assert (np.abs(kept.states() - states) <= 0.501 * step).all()


def test_a_streams_passages_know_the_states_that_chose_what_they_read() -> None:
    tokens, states = list(range(300)), States(4)
    made = np.random.default_rng(0).standard_normal((160, 4)).astype(np.float32)
    states.put(140, made)
    read = 139
    for one in of_stream(tokens, 140, states):
        assert one.chosen is not None
        for state in one.chosen.states():
            # The prompt's last token was chosen by nobody.
            wanted = made[read - 140] if read >= 140 else np.zeros(4)
            assert np.allclose(state, wanted, atol=0.02)
            read += 1
    assert read == 299


def test_damaged_passages_are_noticed() -> None:
    raw = pack([passage(1), passage(2)])
    assert unpack(raw, 10) is None
    for cut in range(0, len(raw), 37):
        assert unpack(raw[:cut], VOCAB) is None


def test_accepted_texts_are_read_first_then_edited_ones_then_the_newest() -> None:
    warmup = WarmUp()
    text = np.arange(100, dtype=np.int32)
    warmup.wish("old.py", "file", text, 10.0)
    warmup.wish("new.py", "file", text + 100, 20.0)
    warmup.wish("edited.py", "file", text + 200, 5.0)
    warmup.wish("edited.py", "file", text + 201, 6.0)
    warmup.wish("accepted/1", "accepted", text + 300)
    read = []
    while (block := warmup.next()) is not None:
        read.append(int(block.tokens[0]))
    assert read == [300, 201, 100, 0]


def test_a_large_repository_is_read_up_to_its_budget_and_changes_earn_a_little_more() -> None:
    warmup = WarmUp()
    for number in range(300):
        warmup.wish(f"{number}.py", "file", np.full(4000, number, np.int32), float(number))
    read = 0
    while (block := warmup.next()) is not None:
        read += len(block.tokens) - block.first
    assert BUDGET - 1024 <= read <= BUDGET + 1024
    assert len(warmup._texts) == TEXTS
    warmup.wish("299.py", "file", np.full(4000, 1, np.int32), 400.0)
    more = 0
    while (block := warmup.next()) is not None:
        more += len(block.tokens)
    assert 500 <= more <= 2 * 1024 + OVERLAP


def test_a_block_becomes_passages_whose_rows_are_all_of_its_new_tokens() -> None:
    warmup = WarmUp()
    warmup.wish("a.py", "file", np.arange(1200, dtype=np.int32) % VOCAB)
    rows = []
    while (block := warmup.next()) is not None:
        n = len(block.tokens)
        top = np.repeat(block.tokens[:, None], TOP, axis=1)
        states = np.full((n, 2), VOCAB, np.float32)  # the same scale in every row
        states[:, 0] = block.tokens
        for one in passages_of(block, top, np.zeros((n, TOP), np.float32), states):
            assert one.first >= 1
            assert one.chosen is not None
            # A row's state is that of the row before it.
            before = one.read_by[1]
            assert np.allclose(one.chosen.states()[:, 0], before, atol=0.6 * VOCAB / 127)
            rows += one.top[:, 0].tolist()
            assert np.array_equal(one.top[:, 0], one.tokens[one.first :])
    assert rows == [n % VOCAB for n in range(1, 1200)]
