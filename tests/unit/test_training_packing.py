"""Fill-in-the-middle documents, packed rows, the chunked loss and the loop detector."""

import random
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers, trainers
from torch.nn import functional as F

from training import chat, evaluate, fim, loss, pack, tokenizer

SOURCE = "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n" * 20


@pytest.fixture(scope="module")
def small_tokenizer() -> Tokenizer:
    made = tokenizer.blank()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([SOURCE], trainer)
    made.add_special_tokens(tokenizer.SPECIAL)
    return made


@given(st.text(min_size=1), st.integers(0, 1000))
def test_a_hole_is_cut_without_losing_a_character(text: str, seed: int) -> None:
    assert "".join(fim.cut(text, random.Random(seed))) == text


@given(st.integers(0, 1000))
def test_a_rest_of_line_hole_starts_at_a_character_and_ends_with_its_line(seed: int) -> None:
    hole = fim.rest_of_line(SOURCE, random.Random(seed))
    assert hole is not None
    assert not hole.middle[0].isspace()
    assert "\n" not in hole.middle
    assert hole.suffix.startswith("\n")


def test_both_orders_are_qwens_and_end_with_the_end_token() -> None:
    hole = fim.Hole("P", "M", "S")
    assert fim.document(hole, suffix_first=False) == (
        "<|fim_prefix|>P<|fim_suffix|>S<|fim_middle|>M<|endoftext|>"
    )
    assert fim.document(hole, suffix_first=True) == (
        "<|fim_suffix|>S<|fim_prefix|>P<|fim_middle|>M<|endoftext|>"
    )


@pytest.mark.parametrize("suffix_first", [False, True])
def test_encoded_parts_decode_to_the_document(
    small_tokenizer: Tokenizer, suffix_first: bool
) -> None:
    hole = fim.Hole("def a", "dd(a", ", b):\n")
    ids = {token: small_tokenizer.token_to_id(token) for token in tokenizer.SPECIAL}
    made = fim.encode(lambda text: small_tokenizer.encode(text).ids, hole, suffix_first, ids)
    assert small_tokenizer.decode(made, skip_special_tokens=False) == fim.document(
        hole, suffix_first
    )


def test_rows_are_full_and_never_cut_a_hole(small_tokenizer: Tokenizer) -> None:
    packer = pack.Packer(small_tokenizer, length=127, seed=1)
    for number in range(60):
        documents = [pack.Document(f"p{number}", f"{i}.py", SOURCE) for i in range(2)]
        packer.add_group(documents)
    rows = list(packer.rows(last=True))
    assert len(rows) > 100
    assert {len(row) for row in rows} == {128}
    start, middle, end = (packer.ids[t] for t in (fim.PREFIX, fim.MIDDLE, fim.END))
    whole = 0
    for row in rows:
        for at in (i for i, token in enumerate(row) if token == middle):
            if start in row[:at] and end in row[at:]:
                whole += 1
    assert whole > 50
    text = small_tokenizer.decode(
        [token for row in rows for token in row], skip_special_tokens=False
    )
    assert re.search(r"<\|repo_name\|>p\d+\n<\|file_sep\|>[01]\.py\n", text)


def test_a_chat_pair_asks_with_the_docstring_and_answers_without_it() -> None:
    source = 'def twice(x):\n    """Return the double of a number given."""\n    return 2 * x\n'
    document = pack.Document("p", "a.py", source)
    (pair,) = chat.pairs([document], seed=1)
    assert "Return the double of a number given." in pair.question
    assert pair.answer == "```python\ndef twice(x):\n    return 2 * x\n```"


def test_the_chunked_loss_has_torchs_value_and_gradients() -> None:
    torch.manual_seed(0)
    states = torch.randn(1500, 8, requires_grad=True)
    head = torch.randn(40, 8, requires_grad=True)
    targets = torch.randint(0, 40, (1500,))
    wanted = F.cross_entropy(states @ head.T, targets)
    wanted_grads = torch.autograd.grad(wanted, (states, head))
    made = loss.cross_entropy(states, head, targets)
    torch.testing.assert_close(made, wanted)
    made_grads = torch.autograd.grad(made, (states, head))
    for made_grad, wanted_grad in zip(made_grads, wanted_grads, strict=True):
        torch.testing.assert_close(made_grad, wanted_grad, rtol=1e-4, atol=1e-7)


def test_a_loop_is_an_end_that_repeats() -> None:
    assert evaluate.is_loop([*range(100), *[7] * 30])
    assert evaluate.is_loop([*range(100), *[1, 2, 3] * 12])
    assert not evaluate.is_loop(list(range(200)))
    assert not evaluate.is_loop([*[1, 2, 3] * 12, *range(40)])


def test_some_holes_follow_pieces_of_the_repositorys_other_files(
    small_tokenizer: Tokenizer,
) -> None:
    packer = pack.Packer(small_tokenizer, length=1023, seed=1)
    for _ in range(40):
        packer.add_group([pack.Document("lib", f"{i}.py", SOURCE) for i in range(3)])
    begun = [
        tokens[: tokens.index(packer.ids[fim.PREFIX])]
        for tokens in packer.whole
        if packer.ids["<|repo_name|>"] in tokens and tokens[0] == packer.ids["<|repo_name|>"]
    ]
    files = [head.count(packer.ids["<|file_sep|>"]) for head in begun]
    assert max(files) in (2, 3)
    assert sum(count > 1 for count in files) > len(packer.whole) / 8
    assert all(len(tokens) <= 1024 for tokens in packer.whole)


def test_shares_are_the_usual_ones_or_those_given() -> None:
    usual = pack.parse_shares("python,c")
    assert usual["python"] / usual["c"] == pytest.approx(
        tokenizer.SHARES["python"] / tokenizer.SHARES["c"]
    )
    assert pack.parse_shares("python=3,c=1") == {"python": 0.75, "c": 0.25}
