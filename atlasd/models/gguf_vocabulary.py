"""A ``tokenizers`` tokenizer from the vocabulary in a GGUF file.

llama.cpp names how text is split before the merges (``tokenizer.ggml.pre``); the table below is
its src/llama-vocab.cpp, as far as models of the families served here use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from atlasd.errors import ModelError
from atlasd.models.gguf_file import read_gguf

CONTROL, USER_DEFINED, UNKNOWN = 3, 4, 2
"""Token types of GGUF that matter here."""

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{TAIL}"
LLAMA3 = rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{TAIL}"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_CODER = (
    r"[\r\n]",
    r"\s?\p{L}+",
    r"\s?\p{P}+",
    "[一-龥ࠀ-一가-퟿]+",
    r"\p{N}",
)
SPLITS: dict[str, tuple[str, ...]] = {
    "default": (GPT2,),
    "gpt-2": (GPT2,),
    "qwen2": (QWEN2,),
    "llama-bpe": (LLAMA3,),
    "smaug-bpe": (LLAMA3,),
    "llama3": (LLAMA3,),
    "tekken": (TEKKEN,),
    "starcoder": (r"\p{N}", GPT2),
    "refact": (r"\p{N}", GPT2),
    "smollm": (r"\p{N}", GPT2),
    "deepseek-coder": DEEPSEEK_CODER,
    "seed-coder": (
        rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{L}}+|\p{{N}}{{1}}"
        r"| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+",
    ),
}
WHOLE_WORDS = {"llama-bpe", "llama3", "tekken"}
"""Vocabularies in which a word that is an entry is taken whole, without merging."""


def tokenizer_from_gguf(path: Path) -> tuple[Tokenizer, dict[str, Any], list[int]]:
    """(tokenizer, settings as in tokenizer_config.json, end token ids) of a GGUF file."""
    metadata = read_gguf(path).metadata
    words: list[str] = metadata.get("tokenizer.ggml.tokens") or []
    if not words:
        raise ModelError(f"{path} holds no vocabulary.", "Convert the model again with it.")
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        inner = _byte_level(path, words, metadata)
    elif kind == "llama":
        inner = _sentencepiece(words, metadata)
    else:
        raise ModelError(
            f"{path} has a tokenizer of kind {kind!r}.",
            "Use the safetensors version; of GGUF, `gpt2` and `llama` vocabularies are read.",
        )
    _add_tokens(inner, words, metadata)
    settings = {"chat_template": metadata.get("tokenizer.chat_template")}
    keys = ("eos_token_id", "eot_token_id", "eom_token_id")
    ends = [metadata.get(f"tokenizer.ggml.{key}") for key in keys]
    return inner, settings, [int(id) for id in ends if id is not None]


def _byte_level(path: Path, words: list[str], metadata: dict[str, Any]) -> Tokenizer:
    """GPT-2's byte-level BPE behind the file's way of splitting."""
    name = metadata.get("tokenizer.ggml.pre", "default")
    if name not in SPLITS:
        raise ModelError(
            f"{path} splits text in a way that is not known here ({name!r}).",
            f"Use the safetensors version; of GGUF, these are read: {', '.join(sorted(SPLITS))}.",
        )
    merges = [tuple(merge.split(" ", 1)) for merge in metadata["tokenizer.ggml.merges"]]
    inner = Tokenizer(
        BPE(
            {word: id for id, word in enumerate(words)},
            merges,
            ignore_merges=name in WHOLE_WORDS,
        )
    )
    if name == "qwen2":
        inner.normalizer = normalizers.NFC()
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS[name]]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    inner.pre_tokenizer = pre_tokenizers.Sequence([*splits, byte_level])
    inner.decoder = decoders.ByteLevel()
    return inner


def _sentencepiece(words: list[str], metadata: dict[str, Any]) -> Tokenizer:
    """SentencePiece BPE with byte fallback, as Llama 2 and Mistral use it.

    The file has scores, not merges: every way to put an entry together from two others is a merge,
    the best score first (as transformers' SentencePieceExtractor derives them).
    """
    scores: list[float] = metadata["tokenizer.ggml.scores"]
    vocabulary = {word: id for id, word in enumerate(words)}
    merges: list[tuple[float, int, int, tuple[str, str]]] = []
    for word, id in vocabulary.items():
        for cut in range(1, len(word)):
            left, right = word[:cut], word[cut:]
            if left in vocabulary and right in vocabulary:
                merges.append((-scores[id], vocabulary[left], vocabulary[right], (left, right)))
    inner = Tokenizer(
        BPE(
            vocabulary,
            [pair for *_, pair in sorted(merges)],
            unk_token=words[int(metadata.get("tokenizer.ggml.unknown_token_id", 0))],
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = metadata.get("tokenizer.ggml.add_space_prefix", True)
    spaces = normalizers.Replace(" ", "▁")
    inner.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefixed else spaces
    )
    inner.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return inner


def _add_tokens(inner: Tokenizer, words: list[str], metadata: dict[str, Any]) -> None:
    types: list[int] = metadata.get("tokenizer.ggml.token_type") or [1] * len(words)
    for special, run in _runs(types):
        added = [AddedToken(words[id], special=special, normalized=False) for id in run]
        (inner.add_special_tokens if special else inner.add_tokens)(added)
    begin = metadata.get("tokenizer.ggml.bos_token_id")
    if metadata.get("tokenizer.ggml.add_bos_token") and begin is not None:
        from tokenizers.processors import TemplateProcessing

        word = words[int(begin)]
        inner.post_processor = TemplateProcessing(
            single=f"{word} $A", special_tokens=[(word, int(begin))]
        )


def _runs(types: list[int]) -> list[tuple[bool, list[int]]]:
    """Ids of added tokens, control ones first."""
    control = [id for id, kind in enumerate(types) if kind in (CONTROL, UNKNOWN)]
    defined = [id for id, kind in enumerate(types) if kind == USER_DEFINED]
    return [(True, control), (False, defined)]
