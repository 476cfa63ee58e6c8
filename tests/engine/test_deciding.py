"""A decoder that decides its steps gives the tokens that the engine would have chosen itself."""

from __future__ import annotations

import numpy as np
import pytest

from atlasd.engine.booking import BOOKED_TOGETHER
from atlasd.engine.inprocess import Outputs, request
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Sampling
from atlasd.engine.sampling import choose_row, top_choices
from atlasd.engine.steps import Engine
from atlasd.models.decoder import Int32, Verified, Wanted
from tests.engine.hash_decoder import HashDecoder
from tests.engine.oracle import OracleController

GREEDY, SAMPLED = Sampling(), Sampling(temperature=0.9, seed=2**63 + 7)
PENALISED = Sampling(temperature=0.8, seed=3, repetition_penalty=1.3)
FILTERED = Sampling(temperature=0.8, seed=4, top_p=0.8)


class Deciding(HashDecoder):
    """Decides with the engine's own reference, as a GPU does with its kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.decided = 0

    def verify(self, tokens: Int32, slots: Int32, positions: Int32, wanted: Wanted) -> Verified:
        self.decided += 1
        wanted.meanwhile()
        logits = self.forward(tokens, slots, positions, wanted.rows)
        chosen = [
            choose_row(row, n.temperature, n.seed, n.choice, n.output_index)
            if n.temperature
            else int(row.argmax())
            for row, n in zip(logits, wanted.noise, strict=True)
        ]
        rows = wanted.rows
        assert sum(count for _, count in wanted.parts) == len(rows)
        top, logprobs = top_choices(logits, 8) if len(logits) else (rows[:, None], logits)
        return Verified(np.array(chosen, np.int32), rows, top, logprobs)


def serve(decoder: HashDecoder, samplings: list[Sampling], truth: dict[int, list[int]] | None):
    outputs = Outputs()
    planning = None if truth is None else Planning(OracleController(truth, decoder.vocab_size, 0))
    engine = Engine(decoder, outputs.take, planning=planning)
    for number, sampling in enumerate(samplings):
        engine.submit(request(number, [1, 2, 3, number], max_tokens=20, sampling=sampling))
    while engine.step():
        pass
    engine.check_integrity()
    return {number: output.tokens for number, output in outputs.items()}


@pytest.mark.parametrize("samplings", [[GREEDY], [SAMPLED], [GREEDY, SAMPLED, SAMPLED]])
def test_decided_steps_give_the_engines_own_tokens(samplings: list[Sampling]) -> None:
    expected = serve(HashDecoder(), samplings, None)
    decoder = Deciding()
    assert serve(decoder, samplings, None) == expected
    assert decoder.decided >= 19
    assert serve(Deciding(), samplings, expected) == expected


@pytest.mark.parametrize("sampling", [PENALISED, FILTERED])
def test_a_stream_that_needs_its_logits_takes_the_step_the_long_way(sampling: Sampling) -> None:
    expected = serve(HashDecoder(), [sampling, SAMPLED], None)
    decoder = Deciding()
    assert serve(decoder, [sampling, SAMPLED], None) == expected
    assert decoder.decided == 0


def test_steps_are_counted_together_while_the_device_works_on_the_next_one() -> None:
    counted: list[float] = []

    class Watching(Deciding):
        def verify(self, tokens: Int32, slots: Int32, positions: Int32, wanted: Wanted) -> Verified:
            counted.append(engine.counters.values.get("steps", 0))
            verified = super().verify(tokens, slots, positions, wanted)
            counted.append(engine.counters.values.get("steps", 0))
            return verified

    engine = Engine(Watching(), Outputs().take)
    more = 4
    engine.submit(request(1, [1, 2], max_tokens=BOOKED_TOGETHER + more))
    while engine.step():
        pass
    uncounted = 2 * BOOKED_TOGETHER + 1  # looks: two a step, and before the device begins the next
    assert counted[:uncounted] == [0] * uncounted
    assert counted[uncounted:] == [BOOKED_TOGETHER] * (2 * more - 1)
    assert engine.counters.values["steps"] == BOOKED_TOGETHER + more


def test_what_is_no_number_ends_the_stream() -> None:
    class Broken(Deciding):
        def verify(self, *args, **kwargs) -> Verified:
            verified = super().verify(*args, **kwargs)
            verified.tokens[:] = -1
            return verified

    outputs = Outputs()
    engine = Engine(Broken(), outputs.take)
    engine.submit(request(1, [1, 2], max_tokens=5))
    while engine.step():
        pass
    assert outputs[1].reason == "error"
    assert "no number" in outputs[1].message
