"""Constraints: masks keep any choice valid, forced tokens are forced, drafts are trimmed."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator

import numpy as np
import pytest
import tokenizers
from llguidance import LLMatcher, LLTokenizer
from tokenizers import decoders, models, pre_tokenizers, trainers

from atlasd.draft.confidence import Confidence
from atlasd.draft.constraint import Constraint
from atlasd.draft.controller import Controller
from atlasd.draft.drafter import StreamView
from atlasd.draft.grammar import Grammar
from atlasd.draft.registry import Drafting
from atlasd.errors import RequestError

SCHEMA = json.dumps(
    {
        "type": "object",
        "properties": {
            "name": {"enum": ["read_file", "write_file"]},
            "line": {"type": "integer", "minimum": 1, "maximum": 999},
        },
        "required": ["name", "line"],
        "additionalProperties": False,
    }
)


@pytest.fixture(scope="module")
def vocabulary() -> tokenizers.Tokenizer:
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(['{"name": "read_file", "line": 12}', "write_file"] * 20, trainer)
    return made


@pytest.fixture(scope="module")
def tokenizer(vocabulary: tokenizers.Tokenizer) -> Iterator[LLTokenizer]:
    return LLTokenizer(vocabulary.to_str(), eos_token=0)


def of_schema(tokenizer: LLTokenizer) -> Constraint:
    return Constraint(tokenizer, LLMatcher.grammar_from_json_schema(SCHEMA))


def of_regex(tokenizer: LLTokenizer, regex: str) -> Constraint:
    return Constraint(tokenizer, LLMatcher.grammar_from_regex(regex))


def random_output(constraint: Constraint, seed: int, limit: int = 200) -> list[int]:
    chooser = random.Random(seed)
    tokens: list[int] = []
    while len(tokens) < limit and not constraint.finished:
        allowed = constraint.allowed()[0].nonzero()[0].tolist()
        token = 0 if 0 in allowed else chooser.choice(allowed)
        tokens.append(token)
        constraint.accept([token])
        if token == 0:
            break
    return tokens


@pytest.mark.parametrize("seed", range(5))
def test_any_choice_within_the_masks_is_valid_json(
    vocabulary: tokenizers.Tokenizer, tokenizer: LLTokenizer, seed: int
) -> None:
    tokens = random_output(of_schema(tokenizer), seed)
    text = vocabulary.decode([t for t in tokens if t])
    if tokens[-1] == 0:  # else white space went on to the limit
        value = json.loads(text)
        assert value["name"] in ("read_file", "write_file")
        assert 1 <= value["line"] <= 999


def test_a_regular_expression_holds(
    vocabulary: tokenizers.Tokenizer, tokenizer: LLTokenizer
) -> None:
    for seed in range(5):
        tokens = random_output(of_regex(tokenizer, "[a-c]{2,4}-[0-9]{3}"), seed)
        text = vocabulary.decode([t for t in tokens if t])
        assert re.fullmatch("[a-c]{2,4}-[0-9]{3}", text)


def test_rows_of_a_draft_have_the_masks_of_the_same_tokens_one_by_one(
    vocabulary: tokenizers.Tokenizer, tokenizer: LLTokenizer
) -> None:
    draft = vocabulary.encode('{"name": "read_file", "line": 7}').ids
    together = of_schema(tokenizer).allowed(draft)
    single = of_schema(tokenizer)
    for at, token in enumerate(draft):
        assert (together[at] == single.allowed()[0]).all()
        single.accept([token])
    assert (together[-1] == single.allowed()[0]).all()


def test_trims_drafts_to_what_is_allowed_and_keeps_its_place(
    vocabulary: tokenizers.Tokenizer, tokenizer: LLTokenizer
) -> None:
    constraint = of_schema(tokenizer)
    good = vocabulary.encode('{"name": "write').ids
    bad = vocabulary.encode("xyz").ids
    before = constraint.allowed()
    assert constraint.valid([*good, *bad]) == len(good)
    assert constraint.valid(bad) == 0
    assert not constraint.allowed([*bad, *good])[1:].any()
    assert (constraint.allowed() == before).all()


def test_forced_tokens_are_the_only_ones_allowed(tokenizer: LLTokenizer) -> None:
    constraint = of_regex(tokenizer, "fixed text only")
    forced = constraint.forced()
    assert forced
    rows = constraint.allowed(forced)
    for at, token in enumerate(forced):
        assert rows[at].nonzero()[0].tolist() == [token]
        assert constraint.forced(forced[:at]) == forced[at:]
    assert rows[-1].nonzero()[0].tolist() == [0]
    assert not constraint.allowed([*forced, 0, forced[0]])[-2:].any()


def test_nothing_is_drafted_where_there_is_a_choice_or_no_constraint(
    tokenizer: LLTokenizer,
) -> None:
    drafter = Grammar()
    constraint = of_regex(tokenizer, "fixed text [0-9]")
    forced = constraint.forced()
    held = StreamView(1, [5], 1, constraint=constraint)
    assert drafter.propose(held, [], 3).tokens == forced[:3]
    assert drafter.propose(held, forced[:2], 64).tokens == forced[2:]
    assert drafter.propose(held, forced, 64).tokens == []
    assert drafter.propose(StreamView(2, [5], 1), [], 64).tokens == []
    assert constraint.accept(forced) == len(forced)
    assert drafter.propose(held, [], 64).tokens == []


def test_a_copy_goes_its_own_way(tokenizer: LLTokenizer) -> None:
    first = of_regex(tokenizer, "fixed text only")
    forced = first.forced()
    second = first.copy()
    assert first.accept([*forced, 0]) == len(forced)
    assert first.finished
    assert second.forced() == forced


class Costs:
    def ms(self, rows: int, kv_tokens: int) -> float:
        return 10.0

    def bucket(self, rows: int) -> int:
        return rows


def test_the_controller_drafts_forced_tokens_with_certainty(tokenizer: LLTokenizer) -> None:
    grammar = Grammar()
    controller = Controller([grammar], Confidence(), Costs())
    stream = StreamView(1, [5], 1, constraint=of_regex(tokenizer, "fixed text only"))
    controller.begin(stream)
    plan = controller.plan([stream], 15)
    assert plan.drafts[0].source == "grammar"
    assert min(plan.record.chosen[0].confidence) > 0.99


def test_other_drafters_are_trimmed_and_continued_by_what_is_forced(
    vocabulary: tokenizers.Tokenizer, tokenizer: LLTokenizer
) -> None:
    drafting = Drafting(
        vocab_size=tokenizer.vocab_size, fingerprint="", costs=Costs(), index_bytes=1 << 20
    )
    seen = vocabulary.encode('xx{"name": "delete_file"}').ids
    drafting.add_segment("f", "r", "file", np.array(seen, np.int32))
    constraint = of_schema(tokenizer)
    drafting.expect_constraints()
    stream = StreamView(1, vocabulary.encode("xx").ids, 2, "r", constraint=constraint)
    drafting.controller.begin(stream)
    draft = drafting.controller.plan([stream], 30).drafts[0]
    assert draft.tokens
    assert constraint.valid(draft.tokens) == len(draft.tokens)
    stream.tokens.extend(draft.tokens)
    drafting.controller.settle(stream, draft, len(draft.tokens), draft.tokens, None, 10.0)
    drafting.controller.end(stream)


@pytest.mark.parametrize(
    "grammar",
    [LLMatcher.grammar_from_regex("(unclosed"), LLMatcher.grammar_from_lark("!!"), "{nonsense"],
)
def test_a_definition_that_cannot_be_used_is_refused(tokenizer: LLTokenizer, grammar: str) -> None:
    with pytest.raises(RequestError):
        Constraint(tokenizer, grammar)
