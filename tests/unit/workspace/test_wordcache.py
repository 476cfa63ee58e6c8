"""Word by word gives the library's tokens, for every kind of tokenizer it takes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from atlasd.models.locate import gguf_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.workspace import wordcache
from atlasd.workspace.slices import slices
from atlasd.workspace.tokens import Pack, pack
from atlasd.workspace.wordcache import by_words

SOURCES = [path.read_text() for path in sorted(Path(wordcache.__file__).parent.glob("*.py"))][:8]
QWEN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN.replace(r"\p{N}|", r"\p{N}{1,3}|")


def trained(cutter: Any, normalizer: Any = None, added: tuple[str, ...] = ()) -> Tokenizer:
    inner = tokenizers.Tokenizer(models.BPE())
    inner.pre_tokenizer = cutter
    if normalizer:
        inner.normalizer = normalizer
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    inner.train_from_iterator(SOURCES, trainer)
    inner.add_tokens(list(added))
    inner.add_special_tokens(["<|endoftext|>"])
    return Tokenizer(inner, {})


def split(pattern: str, behavior: str = "isolated", invert: bool = False) -> Any:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(pattern), behavior, invert),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


KINDS = {
    "qwen": lambda: trained(split(QWEN), normalizers.NFC()),
    "llama 3": lambda: trained(split(LLAMA3)),
    "matches kept": lambda: trained(split(QWEN, "removed", True)),
    "gpt-2": lambda: trained(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "added tokens": lambda: trained(split(QWEN), added=("    ", "foo_bar")),
}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return KINDS[request.param]()


def packed(tokenizer: Tokenizer, texts: list[str]) -> list[bytes]:
    """What the library makes of the texts."""
    return [pack(ids) for ids in tokenizer.encode_batch(texts)]


def words_of(tokenizer: Tokenizer) -> Pack:
    quick = by_words(tokenizer.encode_batch)
    assert quick is not None
    return quick


@settings(deadline=None, max_examples=100)
@given(
    text=st.text(
        st.one_of(
            st.sampled_from(" \n\r\t'sabAB01_.(foo_bar)é²\u0301ſΩ中🎉\u00a0"), st.characters()
        ),
        max_size=60,
    )
)
def test_any_text_gives_the_librarys_tokens(tokenizer: Tokenizer, text: str) -> None:
    quick = words_of(tokenizer)
    text = text.encode("utf-8", "ignore").decode()
    assert quick([text]) == packed(tokenizer, [text]) == quick([text])


def test_source_code_is_tokenised_word_by_word(tokenizer: Tokenizer) -> None:
    quick = words_of(tokenizer)
    for text in SOURCES:
        pieces = slices(text, 2000)
        assert quick(pieces) == packed(tokenizer, pieces)


def test_pieces_are_cut_where_the_tokenizer_cuts() -> None:
    tokenizer = KINDS["qwen"]()
    for text in SOURCES:
        [whole] = tokenizer.encode_batch([text])
        pieces = tokenizer.encode_batch(slices(text, 300))
        assert [id for piece in pieces for id in piece] == whole


def test_remembered_words_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wordcache, "WORDS", 50)
    tokenizer = KINDS["qwen"]()
    quick = words_of(tokenizer)
    for text in SOURCES[:5]:
        for piece in slices(text, 200):
            assert quick([piece]) == packed(tokenizer, [piece])
    assert len(quick.__self__._known) <= 50  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "cutter",
    [
        pre_tokenizers.ByteLevel(add_prefix_space=True),
        pre_tokenizers.Metaspace(),
        pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.ByteLevel()]),
        split(r"\w+", "merged_with_next"),
    ],
)
def test_other_kinds_are_left_to_the_library(cutter: Any) -> None:
    tokenizer = trained(cutter)
    assert by_words(tokenizer.encode_batch) is None
    assert by_words(list) is None  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2", "deepseek-coder", "starcoder"])
def test_real_vocabularies_give_the_librarys_tokens(name: str) -> None:
    data = Path(__file__).parents[4] / "shared" / "data" / f"ggml-vocab-{name}.gguf"
    if not data.exists():
        pytest.skip("the real vocabularies are not part of the repository")
    tokenizer = Tokenizer.load(gguf_model(data))
    quick = words_of(tokenizer)
    for text in SOURCES:
        pieces = slices(text, 2000)
        assert quick(pieces) == packed(tokenizer, pieces)
