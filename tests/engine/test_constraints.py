"""Constrained streams: valid whatever drafts, the same with and without drafts, compiled aside."""

from __future__ import annotations

import json
import random
import re
from functools import cache

import numpy as np
import pytest
from llguidance import LLMatcher, LLTokenizer

from atlasd.draft.confidence import Confidence
from atlasd.draft.constraint import Constraint
from atlasd.draft.controller import Controller
from atlasd.draft.grammar import Grammar
from atlasd.draft.registry import Drafting
from atlasd.engine.costs import StepCosts
from atlasd.engine.inprocess import Output, Outputs, request, run
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Sampling
from atlasd.engine.steps import Engine
from atlasd.errors import RequestError
from bench.identity_cases import GRAMMARS
from tests.engine.hash_decoder import HashDecoder
from tests.engine.oracle import OracleController
from tests.served import byte_tokenizer

SAMPLINGS = [
    Sampling(),
    Sampling(temperature=1.0, seed=3),
    Sampling(temperature=0.8, top_p=0.9, seed=5, repetition_penalty=1.2, logit_bias={65: 3.0}),
]
TOKENIZER = byte_tokenizer()
VOCAB, ENDS = TOKENIZER.vocab_size, list(TOKENIZER.eos_ids)
LONG = 100


@cache
def vocabulary() -> LLTokenizer:
    return LLTokenizer(TOKENIZER.serialized(), n_vocab=VOCAB, eos_token=ENDS)


def held(name: str) -> Constraint:
    return Constraint(vocabulary(), GRAMMARS[name])


def submitted(engine: Engine, number: int, name: str, sampling: Sampling, most: int = LONG) -> None:
    asked = request(number, [1, 2, 3], max_tokens=most, sampling=sampling, stop_tokens=ENDS)
    asked.repository = "/r"
    engine.submit(asked, held(name))


def engine_with(planning: Planning | None = None) -> tuple[Engine, Outputs]:
    outputs = Outputs()
    return Engine(HashDecoder(vocab_size=VOCAB), outputs.take, planning=planning), outputs


@cache
def plain(name: str, index: int, most: int = LONG) -> Output:
    engine, outputs = engine_with()
    submitted(engine, 1, name, SAMPLINGS[index], most)
    run(engine)
    assert outputs[1].message == ""
    return outputs[1]


def check(name: str, tokens: list[int]) -> None:
    text = TOKENIZER.decode(tokens)
    if name == "json":
        value = json.loads(text)
        assert value["name"] in ("read_file", "write_file")
        assert len(value["note"]) <= 12
        assert all(line <= 999 for line in value["lines"])
    elif name == "regex":
        assert re.fullmatch("(alpha|beta) is [0-9]{2,5}; that is all", text)
    else:
        assert re.fullmatch(r"[^{]*|[^{]{0,9}\{f: (true|false)\}(;\{f: (true|false)\})*", text)


CASES = [(name, index) for name in GRAMMARS for index in range(len(SAMPLINGS))]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_an_output_is_valid_when_it_ends_by_itself(name: str, index: int) -> None:
    output = plain(name, index)
    if output.reason == "stop":
        check(name, output.tokens)
    assert not set(ENDS) & set(output.tokens)
    assert output.stats.output_tokens == len(output.tokens)


def test_most_outputs_end_by_themselves() -> None:
    assert sum(plain(*case).reason == "stop" for case in CASES) >= 7


@pytest.mark.parametrize(("name", "index"), CASES)
def test_right_and_wrong_drafts_change_nothing(name: str, index: int) -> None:
    truth = plain(name, index)
    for seed in range(3):
        oracle = OracleController({1: truth.tokens}, VOCAB, seed)
        engine, outputs = engine_with(Planning(oracle))
        submitted(engine, 1, name, SAMPLINGS[index])
        run(engine)
        assert (outputs[1].tokens, outputs[1].reason) == (truth.tokens, truth.reason)
        engine.check_integrity()


def costs() -> StepCosts:
    found = StepCosts(HashDecoder().bucket)
    found.measure(1, 0, 1.0)
    found.measure(64, 0, 1.2)
    return found


def test_all_drafters_together_change_nothing_and_forced_text_is_drafted() -> None:
    drafting = Drafting(vocab_size=VOCAB, fingerprint="", costs=costs())
    for number, case in enumerate(CASES):
        if number % 4 == 0:  # forced text that nobody but the grammar knows
            continue
        right = plain(*case).tokens
        wrong = random.Random(number).sample(range(VOCAB), 9)
        seen = np.array([1, 2, 3, *right[:20], *wrong, *right[20:]], np.int32)
        drafting.add_segment(f"{number}.py", "/r", "file", seen)
    drafting.expect_constraints()
    engine, outputs = engine_with(Planning(drafting.controller))
    accepted: dict[str, int] = {}
    for _ in range(3):
        for number, (name, index) in enumerate(CASES):
            submitted(engine, number, name, SAMPLINGS[index])
        run(engine)
        for number, case in enumerate(CASES):
            assert outputs[number].tokens == plain(*case).tokens
            for source, count in outputs[number].stats.accepted.items():
                accepted[source] = accepted.get(source, 0) + count
        outputs.clear()
    assert accepted["grammar"] > 50


def test_forced_text_holds_wherever_it_is_drafted_alone() -> None:
    controller = Controller([grammar := Grammar()], Confidence(), costs())
    controller.trim_with(grammar.trim)
    engine, outputs = engine_with(Planning(controller))
    for number, (name, index) in enumerate(CASES):
        submitted(engine, number, name, SAMPLINGS[index])
    run(engine)
    assert [outputs[n].tokens for n in range(len(CASES))] == [plain(*c).tokens for c in CASES]
    tally = controller.tallies["grammar"]
    assert tally.drafted == tally.accepted > 100


def test_held_and_free_streams_decode_beside_each_other() -> None:
    engine, outputs = engine_with()
    engine.submit(request(9, [1, 2, 3], max_tokens=30))
    run(engine)
    free = outputs[9].tokens
    for number, (name, index) in enumerate(CASES[:3]):
        submitted(engine, number, name, SAMPLINGS[index])
    engine.submit(request(9, [1, 2, 3], max_tokens=30))
    outputs.clear()
    run(engine)
    assert outputs[9].tokens == free
    assert [outputs[n].tokens for n in range(3)] == [plain(*case).tokens for case in CASES[:3]]


def test_max_tokens_cuts_and_says_so() -> None:
    output = plain("json", 0, 12)
    assert (output.reason, len(output.tokens)) == ("length", 12)
    assert plain("json", 0).tokens[:12] == output.tokens


def test_a_text_that_is_complete_needs_no_end_token() -> None:
    whole = plain("regex", 0)
    engine, outputs = engine_with()
    engine.submit(request(1, [1, 2, 3], max_tokens=len(whole.tokens)), held("regex"))
    run(engine)
    assert (outputs[1].tokens, outputs[1].reason) == (whole.tokens, "stop")


def test_a_step_that_fails_ends_nothing_that_can_go_on() -> None:
    decoder = HashDecoder(vocab_size=VOCAB)
    outputs = Outputs()
    oracle = OracleController({1: plain("json", 0).tokens}, VOCAB, 1)
    engine = Engine(decoder, outputs.take, planning=Planning(oracle))
    submitted(engine, 1, "json", SAMPLINGS[0])
    for _ in range(4):
        engine.step()
    forward, failed = decoder.forward, []

    def failing(tokens, *more, **options):
        if len(tokens) > 1 and not failed:
            failed.append(len(tokens))
            raise RuntimeError("once")
        return forward(tokens, *more, **options)

    decoder.forward = failing  # type: ignore[method-assign]
    run(engine)
    assert failed
    assert outputs[1].tokens == plain("json", 0).tokens


def test_what_went_wrong_is_told_without_the_schema() -> None:
    """The log must not hold what somebody works on."""
    grammar = LLMatcher.grammar_from_json_schema('{"$ref": "#", "description": "zebrafish"}')
    with pytest.raises(RequestError, match="cannot be") as refused:
        Constraint(vocabulary(), grammar).allowed()
    assert "zebrafish" not in str(refused.value)
    assert "\n" not in refused.value.message
