"""Slots against a naive model: nothing is reused that is not there, nothing usable is missed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from atlasd.engine.slots import Slots

SLOT_TOKENS = 24
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=SLOT_TOKENS)


def common(a: list[int], b: list[int]) -> int:
    count = 0
    while count < min(len(a), len(b)) and a[count] == b[count]:
        count += 1
    return count


class SlotsAgainstANaiveModel(RuleBasedStateMachine):
    """The model keeps what each slot's memory really holds, written token by token."""

    chunk = 1

    def __init__(self) -> None:
        super().__init__()
        self.memory: list[list[int]] = [[] for _ in range(3)]
        self.streams: dict[int, tuple[list[int], int]] = {}
        self.slots = Slots(3, SLOT_TOKENS, self.chunk, self.copy)

    def copy(self, source: int, target: int, length: int) -> None:
        assert target not in self.streams
        assert source != target
        assert len(self.memory[source]) >= length
        self.memory[target] = self.memory[source][:length]

    @rule(tokens=TOKENS)
    def a_stream_comes(self, tokens: list[int]) -> None:
        limit = len(tokens) - 1
        longest = max(
            min(common(memory, tokens), limit) // self.chunk * self.chunk for memory in self.memory
        )
        before = [list(memory) for memory in self.memory]
        place = self.slots.acquire(np.array(tokens, np.int32), limit)
        if len(self.streams) == 3:
            assert place is None
            return
        assert place is not None
        assert place.slot not in self.streams
        assert place.reused == longest
        assert self.memory[place.slot][: place.reused] == tokens[: place.reused]
        for slot in self.streams:
            assert self.memory[slot] == before[slot]
        self.memory[place.slot] = tokens[: place.reused]
        self.streams[place.slot] = (tokens, place.reused)

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), rows=st.integers(1, 9))
    def a_stream_prefills(self, data: st.DataObject, rows: int) -> None:
        slot = data.draw(st.sampled_from(sorted(self.streams)))
        tokens, done = self.streams[slot]
        rows = rows * self.chunk
        done = min(done // self.chunk * self.chunk + rows, len(tokens))
        self.slots.wrote(slot, done)
        self.streams[slot] = (tokens, done)
        self.memory[slot] = tokens[: done // self.chunk * self.chunk]

    @precondition(lambda self: self.streams)
    @rule(data=st.data(), output=st.lists(st.integers(0, 1), max_size=4))
    def a_stream_leaves(self, data: st.DataObject, output: list[int]) -> None:
        slot = data.draw(st.sampled_from(sorted(self.streams)))
        tokens, done = self.streams.pop(slot)
        if done == len(tokens):
            tokens = (tokens + output)[:SLOT_TOKENS]
            done = len(tokens)
        self.slots.release(slot, np.array(tokens[:done], np.int32), done)
        if self.chunk == 1:
            self.memory[slot] = tokens[:done]

    @invariant()
    def holds_together(self) -> None:
        self.slots.check_integrity()
        assert self.slots.free == 3 - len(self.streams)


class SlotsWithChunksOfFour(SlotsAgainstANaiveModel):
    chunk = 4


TestSlots = SlotsAgainstANaiveModel.TestCase
TestSlotsWithChunks = SlotsWithChunksOfFour.TestCase
for case in (TestSlots, TestSlotsWithChunks):
    case.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def fill(slots: Slots, tokens: list[int]) -> int:
    array = np.array(tokens, np.int32)
    place = slots.acquire(array, len(tokens) - 1)
    assert place is not None
    slots.wrote(place.slot, len(tokens))
    slots.release(place.slot, array, len(tokens))
    return place.slot


def test_a_shared_beginning_is_copied_rather_than_taken_from_a_longer_prompt():
    copies = []
    slots = Slots(3, 100, 1, lambda *call: copies.append(call))
    long = fill(slots, list(range(80)))
    other = fill(slots, [*range(20), *range(90, 99)])
    assert other != long
    assert copies == [(long, other, 20)]
    again = slots.acquire(np.arange(80, dtype=np.int32), 79)
    assert again is not None
    assert (again.slot, again.reused) == (long, 79)


def test_the_least_recently_used_slot_is_given_up():
    slots = Slots(2, 100, 1, lambda *call: None)
    first, second = fill(slots, [1] * 9), fill(slots, [2] * 9)
    assert fill(slots, [1] * 9) == first
    assert fill(slots, [3] * 9) == second


@pytest.mark.parametrize(("chunk", "reused"), [(1, 12), (4, 8), (8, 8)])
def test_what_decoding_wrote_is_reused_only_where_it_has_the_bits_of_prefill(chunk, reused):
    slots = Slots(1, 100, chunk, lambda *call: None)
    prompt = np.arange(8, dtype=np.int32)
    place = slots.acquire(prompt, 7)
    assert place is not None
    slots.wrote(0, 8)
    slots.release(0, np.arange(12, dtype=np.int32), 12)
    assert slots.reusable(np.arange(20, dtype=np.int32), 19) == reused
