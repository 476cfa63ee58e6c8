"""The step loop on a decoder that notices every wrong reuse: exactness, priorities, endings."""

from __future__ import annotations

import random
from time import perf_counter

import numpy as np
import pytest

from atlasd.engine.booking import BOOKED_TOGETHER
from atlasd.engine.inprocess import Output, Outputs, request, run
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Priority, Sampling
from atlasd.engine.steps import Engine
from atlasd.engine.streams import new_stream
from tests.engine.hash_decoder import HashDecoder
from tests.engine.oracle import OracleController

GREEDY = Sampling()
SAMPLED = Sampling(temperature=0.8, top_p=0.9, seed=5, repetition_penalty=1.1, min_p=0.01)


def plain(prompt, sampling=GREEDY, max_tokens=40, stop_tokens=(), chunk=1) -> Output:
    outputs = Outputs()
    engine = Engine(HashDecoder(slots=1, chunk=chunk), outputs.take)
    engine.submit(
        request(1, prompt, max_tokens=max_tokens, sampling=sampling, stop_tokens=stop_tokens)
    )
    run(engine)
    return outputs[1]


def prompts(count: int, seed: int, longest: int = 90) -> list[list[int]]:
    """Prompts of all alignments, many of which begin alike."""
    draw = random.Random(seed)
    shared = [draw.randrange(50) for _ in range(longest)]
    made = []
    for _ in range(count):
        cut = draw.randrange(longest)
        own = [draw.randrange(50) for _ in range(draw.randrange(1, longest - cut + 1))]
        made.append(shared[:cut] + own)
    return made


@pytest.mark.parametrize("chunk", [1, 8])
@pytest.mark.parametrize("seed", range(4))
def test_drafts_neighbours_and_warm_caches_change_nothing(chunk, seed):
    wanted = prompts(12, seed)
    samplings = [GREEDY if i % 2 else SAMPLED for i in range(len(wanted))]
    truth = {
        i: plain(prompt, sampling, chunk=chunk).tokens
        for i, (prompt, sampling) in enumerate(zip(wanted, samplings, strict=True))
    }
    oracle = OracleController(truth, 50, seed)
    outputs = Outputs()
    engine = Engine(HashDecoder(slots=5, chunk=chunk), outputs.take, planning=Planning(oracle))
    draw = random.Random(seed)
    for i, prompt in enumerate(wanted):
        submit = request(i, prompt, max_tokens=40, sampling=samplings[i])
        submit.priority = Priority(draw.randrange(3))
        engine.submit(submit)
        for _ in range(draw.randrange(6)):
            engine.step()
            engine.check_integrity()
    run(engine)
    engine.check_integrity()
    assert {i: output.tokens for i, output in outputs.items()} == truth
    assert all(output.reason == "length" for output in outputs.values())
    accepted = sum(sum(output.stats.accepted.values()) for output in outputs.values())
    assert accepted > 0.3 * sum(map(len, truth.values()))
    assert sorted(oracle.ended) == sorted(oracle.begun) == list(range(len(wanted)))


def test_every_depth_of_rejection_happens():
    truth = {1: plain([1, 2, 3], max_tokens=190).tokens}
    rejected = set()
    for seed in range(12):
        oracle = OracleController(truth, 50, seed, right=0.1)
        outputs = Outputs()
        engine = Engine(HashDecoder(), outputs.take, planning=Planning(oracle))
        engine.submit(request(1, [1, 2, 3], max_tokens=190))
        run(engine)
        assert outputs[1].tokens == truth[1]
        rejected |= set(oracle.rejected_at)
    assert rejected == set(range(1, 16))


@pytest.mark.parametrize("chunk", [1, 8])
def test_a_preempted_stream_goes_on_as_if_nothing_had_happened(chunk):
    wanted = prompts(2, 7)
    truth = [plain(prompt, SAMPLED, chunk=chunk).tokens for prompt in wanted]
    outputs = Outputs()
    engine = Engine(HashDecoder(slots=1, chunk=chunk), outputs.take)
    background = request(0, wanted[0], max_tokens=40, sampling=SAMPLED)
    background.priority = Priority.AHEAD
    engine.submit(background)
    while len(outputs.get(0, Output()).tokens) < 25:
        engine.step()
    engine.submit(request(1, wanted[1], max_tokens=40, sampling=SAMPLED))
    engine.step()
    assert engine.queued == 1
    run(engine)
    assert [outputs[0].tokens, outputs[1].tokens] == truth
    assert engine.counters.values["preempted"] == 1


def test_completions_go_before_chat_and_chat_before_what_nobody_asked_for():
    outputs = Outputs()
    ended = []
    decoder = HashDecoder(slots=1)

    def emit(message):
        outputs.take(message)
        if outputs[message.stream].reason:
            ended.append(message.stream)

    engine = Engine(decoder, emit)
    for number, priority in enumerate(
        [Priority.AHEAD, Priority.CHAT, Priority.COMPLETION, Priority.COMPLETION]
    ):
        submit = request(number, [number, 2, 3], max_tokens=3)
        submit.priority = priority
        engine.submit(submit)
    engine.promote(0, Priority.CHAT)
    run(engine)
    assert ended == [2, 3, 0, 1]


def test_streams_decode_together_while_another_prefills():
    decoder = HashDecoder(slots=3, chunk=4, prefill_rows=4)
    engine = Engine(decoder, Outputs().take)
    engine.submit(request(1, [1] * 4, max_tokens=50))
    engine.submit(request(2, [2] * 4, max_tokens=50))
    for _ in range(4):
        engine.step()
    engine.submit(request(3, list(range(20)), max_tokens=9))
    decoder.calls.clear()
    for _ in range(10):
        engine.step()
    assert decoder.calls[:9] == [("decode", 2), ("prefill", 4)] * 4 + [("decode", 2)] or (
        decoder.calls[:9] == [("prefill", 4), ("decode", 2)] * 4 + [("prefill", 4)]
    )


@pytest.mark.parametrize("chunk", [1, 8])
def test_cancelling_in_the_middle_of_a_prefill_frees_the_slot_at_once(chunk):
    outputs = Outputs()
    engine = Engine(HashDecoder(slots=1, chunk=chunk, prefill_rows=8), outputs.take)
    engine.submit(request(1, list(range(50)), max_tokens=9))
    engine.step()
    engine.step()
    assert engine.slots.free == 0
    engine.cancel(1)
    assert engine.slots.free == 1
    assert outputs[1].reason == "cancelled"
    assert outputs[1].stats.prefilled_tokens == 16
    engine.check_integrity()
    engine.submit(request(2, list(range(50)), max_tokens=9))
    run(engine)
    assert outputs[2].stats.cached_tokens == 16
    assert outputs[2].tokens == plain(list(range(50)), max_tokens=9, chunk=chunk).tokens


def test_cancelling_while_a_drafter_works_skips_the_forward_pass():
    outputs = Outputs()
    decoder = HashDecoder(slots=2)
    oracle = OracleController({}, 50, 0)
    engine = Engine(decoder, outputs.take, planning=Planning(oracle))
    engine.submit(request(1, [1, 2], max_tokens=90))
    for _ in range(3):
        engine.step()
    engine._poll = lambda: engine.cancel(1)
    decoder.calls.clear()
    engine.step()
    assert decoder.calls == []
    assert outputs[1].reason == "cancelled"
    assert oracle.ended == [1]
    assert not engine.busy


def test_nothing_after_a_stop_token_counts_or_is_learned():
    free = plain([1, 2, 3], max_tokens=60).tokens
    stop = free[20]
    at = free.index(stop)
    truth = {1: free}
    outputs = Outputs()
    oracle = OracleController(truth, 50, 0, right=1.0)
    engine = Engine(HashDecoder(), outputs.take, planning=Planning(oracle))
    engine.submit(request(1, [1, 2, 3], max_tokens=60, stop_tokens=[stop, 49]))
    run(engine)
    at = next(i for i, token in enumerate(free) if token in (stop, 49))
    assert outputs[1].tokens == free[:at]
    assert outputs[1].reason == "stop"
    stats = outputs[1].stats
    assert stats.output_tokens == at
    assert oracle.observed[1] == [1, 2, 3, *free[: at + 1]]
    assert sum(stats.drafted.values()) <= at + 1
    assert sum(stats.accepted.values()) <= sum(stats.drafted.values())


def test_what_is_wrong_with_a_request_is_told_and_harms_nobody():
    outputs = Outputs()
    engine = Engine(HashDecoder(), outputs.take)
    engine.submit(request(1, list(range(40)) * 6, max_tokens=5))
    engine.submit(request(2, [], max_tokens=5))
    engine.submit(request(3, [50], max_tokens=5))
    engine.submit(request(4, [1], max_tokens=0))
    engine.submit(request(5, [1], sampling=Sampling(top_p=0.0)))
    assert all(outputs[n].reason == "error" for n in range(1, 6))
    assert "240 tokens" in outputs[1].message
    engine.submit(request(6, [1], max_tokens=5))
    run(engine)
    assert len(outputs[6].tokens) == 5


def test_an_output_ends_where_its_slot_does():
    outputs = Outputs()
    engine = Engine(HashDecoder(slot_tokens=20), outputs.take)
    engine.submit(request(1, list(range(15)), max_tokens=99))
    engine.submit(request(2, list(range(20)), max_tokens=99))
    run(engine)
    assert [len(outputs[n].tokens) for n in (1, 2)] == [6, 1]
    assert outputs[1].reason == "length"


def test_a_failing_forward_pass_fails_only_the_stream_that_causes_it(caplog):
    decoder = HashDecoder()
    good, bad = plain([1, 2], max_tokens=20).tokens, plain([3, 4], max_tokens=20).tokens
    decoder.fail_on = next(token for token in bad if token not in good)
    outputs = Outputs()
    engine = Engine(decoder, outputs.take)
    engine.submit(request(1, [1, 2], max_tokens=20))
    engine.submit(request(2, [3, 4], max_tokens=20))
    run(engine)
    assert outputs[1].tokens == good
    assert outputs[2].reason == "error"
    assert outputs[2].tokens == bad[: bad.index(decoder.fail_on) + 1]
    engine.check_integrity()


class BrokenController(OracleController):
    def plan(self, streams, room, limits=None):
        raise RuntimeError("broken")


def test_a_broken_drafter_costs_only_the_drafts(caplog):
    outputs = Outputs()
    planning = Planning(BrokenController({}, 50, 0))
    engine = Engine(HashDecoder(), outputs.take, planning=planning)
    engine.submit(request(1, [1, 2], max_tokens=20))
    run(engine)
    assert outputs[1].tokens == plain([1, 2], max_tokens=20).tokens
    assert not planning.on
    assert "drafting is off" in caplog.text


def test_with_drafting_off_nothing_of_draft_runs():
    outputs = Outputs()
    oracle = OracleController({1: [1] * 20, 2: [1] * 20}, 50, 0)
    planning = Planning(oracle)
    planning.on = False
    engine = Engine(HashDecoder(), outputs.take, planning=planning)
    engine.submit(request(1, [1, 2], max_tokens=20))
    run(engine)
    planning.on = True
    engine.submit(request(2, [1, 2], max_tokens=20, drafting=False))
    run(engine)
    assert oracle.begun == oracle.ended == []
    assert outputs[1].stats.drafted == outputs[2].stats.drafted == {}


@pytest.mark.parametrize(("chunk", "computed"), [(1, 1), (16, 4)])
def test_one_more_character_computes_a_chunk_at_most(chunk, computed):
    outputs = Outputs()
    engine = Engine(HashDecoder(slots=2, chunk=chunk), outputs.take)
    prompt = np.random.default_rng(0).integers(0, 50, 99).tolist()
    engine.submit(request(1, prompt, max_tokens=3))
    run(engine)
    engine.submit(request(2, [*prompt, 7], max_tokens=3))
    run(engine)
    assert outputs[2].stats.cached_tokens + outputs[2].stats.prefilled_tokens == 100
    assert outputs[2].stats.prefilled_tokens == computed


def test_a_prompt_read_in_a_step_of_decoding_has_its_share_of_the_time():
    """Clients of llama.cpp show it; it was 0 for every prompt shorter than a chunk."""
    outputs = Outputs()
    engine = Engine(HashDecoder(slots=1, chunk=16), outputs.take)
    for number in (1, 2):
        began = perf_counter()
        engine.submit(request(number, list(range(10)), max_tokens=3))
        run(engine)
        stats = outputs[number].stats
        assert stats.prefilled_tokens == 10
        assert stats.prefill_ms > 0
        assert stats.decode_ms > 0
        assert stats.prefill_ms + stats.decode_ms <= (perf_counter() - began) * 1e3


def test_choices_of_one_prompt_differ_and_prefill_it_once():
    outputs = Outputs()
    engine = Engine(HashDecoder(slots=4, chunk=8, prefill_rows=8), outputs.take)
    prompt = list(range(41))
    for choice in range(4):
        sampling = Sampling(temperature=1.0, seed=3, choice=choice)
        engine.submit(request(choice, prompt, max_tokens=20, sampling=sampling))
    run(engine)
    assert len({tuple(output.tokens) for output in outputs.values()}) == 4
    assert [outputs[n].stats.prefilled_tokens for n in range(4)] == [41, 1, 1, 1]


def test_log_probabilities_come_with_every_token():
    outputs = Outputs()
    truth = {1: plain([1, 2], max_tokens=20).tokens}
    oracle = OracleController(truth, 50, 1)
    engine = Engine(HashDecoder(), outputs.take, planning=Planning(oracle))
    submit = request(1, [1, 2], max_tokens=20)
    submit.logprobs = 3
    engine.submit(submit)
    run(engine)
    assert len(outputs[1].logprobs) == len(outputs[1].tokens)
    for token, score in zip(outputs[1].tokens, outputs[1].logprobs, strict=True):
        assert score.top[0].token == token
        assert score.top[0].logprob == score.logprob <= 0
        assert len(score.top) == 3


def test_explain_tells_the_steps_of_a_stream():
    outputs = Outputs()
    controller = OracleController({1: plain([1, 2]).tokens}, 50, 1)
    planning = Planning(controller)
    engine = Engine(HashDecoder(), outputs.take, planning=planning)
    engine.submit(request(1, [1, 2], max_tokens=20))
    run(engine)
    assert len(planning._records[1]) == outputs[1].stats.steps
    assert planning.explain(99) == []


def test_steps_are_counted_a_few_at_a_time_and_all_of_them_in_the_end():
    decoder = HashDecoder()
    engine = Engine(decoder, Outputs().take)
    engine.submit(request(1, [1] * 4, max_tokens=BOOKED_TOGETHER + 4))
    for _ in range(BOOKED_TOGETHER):
        engine.step()
    assert engine.counters.values["steps"] in (0, BOOKED_TOGETHER)
    run(engine)
    rows = [count for kind, count in decoder.calls if kind == "decode"]
    assert engine.counters.values["steps"] == len(rows)
    assert engine.counters.values["rows"] == sum(rows)


def test_a_stream_knows_its_beginning_as_an_array():
    stream = new_stream(request(1, [3, 1, 2]), 1, vocab_size=9, slot_tokens=99)
    stream.tokens.extend([7, 8])
    prefixes = [stream.prefix(length).tolist() for length in (None, 0, 2, 3, 4)]
    assert prefixes == [[3, 1, 2, 7, 8], [], [3, 1], [3, 1, 2], [3, 1, 2, 7]]
