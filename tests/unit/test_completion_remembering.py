"""Tokenising in blocks gives the tokens of the whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.completion.candidates import _chunks
from atlasd.completion.completer import Completer
from atlasd.completion.remembering import BLOCK, RememberingTokenizer
from tests.fake_engine import FakeEngine
from tests.unit.byte_tokenizer import ByteTokenizer
from tests.unit.completing import REQUEST, say

tokenizers = pytest.importorskip("tokenizers")
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SOURCE = Path(__file__).read_text() + Path(__file__).with_name("byte_tokenizer.py").read_text()


class Trained:
    """A byte-level vocabulary trained on this file, with the pre-tokeniser that is asked for."""

    def __init__(self, pattern: str | None) -> None:
        pre = tokenizers.pre_tokenizers
        split = pre.Split(tokenizers.Regex(pattern), "isolated") if pattern else None
        level = pre.ByteLevel(add_prefix_space=False, use_regex=pattern is None)
        self.inner = tokenizers.Tokenizer(tokenizers.models.BPE())
        self.inner.pre_tokenizer = pre.Sequence([split, level]) if split else level
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=700, initial_alphabet=pre.ByteLevel.alphabet(), show_progress=False
        )
        self.inner.train_from_iterator([SOURCE], trainer)
        self.vocab_size, self.eos_ids, self.prefix_ids, self.chat_template = 700, [], [], None
        self.encoded = 0

    def encode(self, text: str, special: bool = False) -> list[int]:
        self.encoded += len(text)
        return self.inner.encode(text).ids

    def token_bytes(self, id: int) -> bytes:
        return b""

    def token_id(self, text: str) -> int | None:
        return None


TOKENIZERS = {"qwen": Trained(QWEN), "gpt2": Trained(None)}
LINES = st.sampled_from(["", "    ", "x = 1;", "    foo()", "\ty\r", "  # é", "}", "'s", "  \t"])
TEXTS = st.lists(LINES, min_size=1, max_size=12).map(lambda lines: "\n".join(lines * 30))


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_long_texts_are_cut_into_blocks(name: str) -> None:
    inner = TOKENIZERS[name]
    ours = RememberingTokenizer(inner)
    text = SOURCE * 4
    assert ours.encode(text) == inner.encode(text)
    inner.encoded = 0
    assert ours.encode(text + "x") == inner.inner.encode(text + "x").ids
    assert inner.encoded <= 2 * BLOCK


@given(TEXTS, st.sampled_from(sorted(TOKENIZERS)))
@settings(deadline=None, max_examples=40)
def test_blocks_give_the_tokens_of_the_whole_text(text: str, name: str) -> None:
    inner = TOKENIZERS[name]
    assert RememberingTokenizer(inner).encode(text) == inner.encode(text)


def test_a_tokenizer_that_crosses_every_border_is_given_whole_texts() -> None:
    class Doubling(ByteTokenizer):
        def encode(self, text: str, special: bool = False) -> list[int]:
            return [len(text), *super().encode(text, special)]

    text = "x = 1\n" * 400
    assert RememberingTokenizer(Doubling()).encode(text) == Doubling().encode(text)


def test_what_is_remembered_is_bounded() -> None:
    class Counting(ByteTokenizer):
        def encode(self, text: str, special: bool = False) -> list[int]:
            return [len(text)]

    ours = RememberingTokenizer(Counting())
    for number in range(30):
        ours.encode(f"{number}" + "x" * 100_000)
    assert sum(len(text) for text, _ in ours._known) <= 2_000_000


async def test_what_is_purged_or_paused_leaves_no_text_in_memory(
    engine: FakeEngine, completer: Completer
) -> None:
    """Not in tokenised blocks, not in the chunks of files that prompts could show."""
    text = "".join(f"def purged_{n}(x):\n    return x\n\n\n" for n in range(99))
    engine.enqueue(say("return width * height"))
    await completer.complete(replace(REQUEST, prefix=text + REQUEST.prefix))
    assert _chunks("a.py", text)
    held = [text for text, _ in completer._tokenizer._known]
    assert any("purged_9" in each for each in held)
    completer.clear()
    assert not completer._tokenizer._known
    assert completer._tokenizer._characters == 0
    assert _chunks.cache_info().currsize == 0
