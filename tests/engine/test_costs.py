"""Step costs: monotone, robust against hiccups, and the same after a restart."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.engine.costs import StepCosts
from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.measure import Recheck, measure_costs
from atlasd.engine.steps import Engine
from tests.engine.hash_decoder import HashDecoder

OBSERVATIONS = st.lists(
    st.tuples(st.integers(1, 80), st.integers(0, 40_000), st.floats(0.01, 1000)), max_size=80
)


@given(OBSERVATIONS, st.sampled_from([1, 16]))
def test_costs_grow_with_rows_and_with_kv_tokens(observations, tile):
    costs = StepCosts(lambda rows: -(-rows // tile) * tile)
    for rows, kv_tokens, ms in observations:
        costs.observe(rows, kv_tokens, ms)
    sizes = [0, 100, 512, 5000, 40_000]
    table = [[costs.ms(rows, kv) for kv in sizes] for rows in range(1, 100)]
    slack = 1 + 1e-9
    for before, after in itertools.pairwise(table):
        assert all(a <= b * slack for a, b in zip(before, after, strict=True))
    for row in table:
        assert all(a <= b * slack for a, b in itertools.pairwise(row))
    assert table[0][0] > 0


@given(OBSERVATIONS)
def test_a_restored_table_gives_the_same_costs(observations):
    costs = StepCosts(lambda rows: rows)
    for rows, kv_tokens, ms in observations:
        costs.observe(rows, kv_tokens, ms)
    costs._stale = True
    again = StepCosts(lambda rows: rows)
    assert again.restore(costs.snapshot())
    for rows in (1, 3, 16, 70):
        assert again.ms(rows, 700) == pytest.approx(costs.ms(rows, 700))


def test_a_cost_that_was_measured_in_a_bad_moment_is_corrected_in_idle_ones():
    costs = StepCosts(lambda rows: rows)
    costs.measure(1, 0, 1.0)
    costs.measure(8, 0, 9.0)
    assert costs.ms(8, 0) == 9.0
    for _ in range(20):
        costs.compare(8, 0, 1.3)
    assert costs.ms(8, 0) == pytest.approx(1.3, rel=0.05)
    assert costs.ms(1, 0) == 1.0


def test_looking_again_writes_where_nobody_reads():
    decoder = HashDecoder(slot_tokens=200)
    outputs = Outputs()
    engine = Engine(decoder, outputs.take)
    prompt = list(range(40))
    engine.submit(request(1, prompt, max_tokens=9))
    run(engine)
    measure_costs(HashDecoder(), engine.costs, 0.1)
    recheck = Recheck(decoder, engine.costs)
    for _ in range(12):
        recheck.look(*engine.slots.unread(64))
    engine.submit(request(2, prompt, max_tokens=9))
    run(engine)
    assert outputs[2].stats.cached_tokens == 39
    assert outputs[2].tokens == outputs[1].tokens


def test_rows_of_one_bucket_cost_the_same():
    costs = StepCosts(lambda rows: -(-rows // 16) * 16)
    costs.measure(1, 0, 10.0)
    assert costs.ms(1, 0) == costs.ms(16, 0) == 10.0
    assert costs.ms(17, 0) > 10.0


def test_between_measurements_costs_are_interpolated():
    costs = StepCosts(lambda rows: rows)
    costs.measure(1, 0, 1.0)
    costs.measure(16, 0, 2.5)
    assert costs.ms(6, 0) == pytest.approx(1.5)
    assert costs.ms(32, 0) == pytest.approx(5.0)


def test_costs_follow_a_lasting_change_but_not_a_hiccup():
    costs = StepCosts(lambda rows: rows)
    costs.measure(1, 0, 1.0)
    costs.measure(16, 0, 2.0)
    costs.observe(1, 10, 500.0)
    assert costs.ms(1, 0) < 1.1
    for _ in range(100):
        costs.observe(1, 10, 3.0)
    assert 2.6 < costs.ms(1, 0) < 3.4
    assert 3.5 < costs.ms(16, 0) < 7


def test_a_size_that_is_first_met_in_a_hiccup_is_soon_known_all_the_same():
    costs = StepCosts(lambda rows: rows)
    for rows, ms in ((1, 1.0), (4, 1.2), (8, 1.4)):
        costs.measure(rows, 0, ms)
    costs.observe(4, 700, 20.0)
    for _ in range(8):
        costs.observe(1, 700, 1.1)
        costs.observe(4, 700, 1.3)
    assert costs.ms(4, 700) / costs.ms(1, 700) == pytest.approx(1.3 / 1.1, rel=0.1)


@pytest.mark.parametrize("payload", [b"", b"nonsense", b"\x80", b"\xc0"])
def test_a_payload_that_does_not_fit_is_ignored(payload):
    assert not StepCosts(lambda rows: rows).restore(payload)


def test_measuring_at_start_fills_the_table_within_its_budget():
    decoder = HashDecoder(slot_tokens=200)
    costs = StepCosts(decoder.bucket)
    seen = []
    measure_costs(decoder, costs, 0.5, seen.append)
    assert seen[-1] == 1.0
    assert set(costs.by_bucket()) == {"1", "2", "4", "8", "16", "32", "64"}
    assert 0 < costs.ms(1, 0) <= costs.ms(64, 0)
    hurried = StepCosts(decoder.bucket)
    measure_costs(decoder, hurried, 0.0)
    assert hurried.ms(1, 0) > 0
