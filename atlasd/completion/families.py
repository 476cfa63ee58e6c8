"""The fill-in-the-middle formats that models were trained with, by their special tokens.

Sources: the models' own cards and papers as collected in Continue's AutocompleteTemplate.ts,
llama.cpp's llama-vocab.cpp, Zed's fim.rs and Tabby's registry. Each field lists the spellings of
a token; a family fits a tokenizer that has a prefix, a suffix and (where it uses one) a middle.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Order = Literal["psm", "spm"]
"""Prefix, suffix, middle; or suffix, prefix, middle."""

Naming = Literal["separators", "separators inside", "hash", "plus", "comments"]
"""How other files are shown: with separator tokens before the hole (or, as StarCoder2, with the
path behind the prefix token), as ``#path`` lines, as ``+++++ path`` lines, or as comments."""

Spellings = tuple[str, ...]


@dataclass(frozen=True)
class Family:
    name: str
    prefix: Spellings
    suffix: Spellings
    middle: Spellings = ()
    repository: Spellings = ()
    separator: Spellings = ()
    pad: Spellings = ()
    ends: Spellings = ()
    """Further tokens that end a text."""
    orders: tuple[Order, ...] = ("psm",)
    naming: Naming = "comments"
    word_starts: bool = False
    """A SentencePiece vocabulary, which puts a space in front of every text it is given."""


FAMILIES = (
    # Qwen2.5-Coder, Qwen3-Coder, Granite 4, and the bundled model.
    Family(
        "qwen",
        prefix=("<|fim_prefix|>",),
        suffix=("<|fim_suffix|>",),
        middle=("<|fim_middle|>",),
        repository=("<|repo_name|>",),
        separator=("<|file_sep|>",),
        pad=("<|fim_pad|>",),
        ends=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|end_of_text|>"),
        naming="separators",
    ),
    # CodeGemma: the same names, without a repository token.
    Family(
        "codegemma",
        prefix=("<|fim_prefix|>",),
        suffix=("<|fim_suffix|>",),
        middle=("<|fim_middle|>",),
        separator=("<|file_separator|>",),
        ends=("<end_of_turn>", "<eos>"),
        naming="separators",
        word_starts=True,
    ),
    # StarCoder 1 and 2, stable-code, Granite-code 3, Refact.
    Family(
        "starcoder",
        prefix=("<fim_prefix>",),
        suffix=("<fim_suffix>",),
        middle=("<fim_middle>",),
        repository=("<repo_name>", "<reponame>"),
        separator=("<file_sep>",),
        pad=("<fim_pad>",),
        ends=("<|endoftext|>", "<filename>", "<gh_stars>"),
        naming="separators inside",
    ),
    # SantaCoder.
    Family(
        "santacoder",
        prefix=("<fim-prefix>",),
        suffix=("<fim-suffix>",),
        middle=("<fim-middle>",),
        pad=("<fim-pad>",),
        ends=("<|endoftext|>",),
    ),
    Family(
        "codellama",
        prefix=("▁<PRE>", "<PRE>"),
        suffix=("▁<SUF>", "<SUF>"),
        middle=("▁<MID>", "<MID>"),
        ends=("▁<EOT>", "<EOT>"),
        word_starts=True,
    ),
    # DeepSeek-Coder and V2: the hole stands where other families put the suffix token.
    Family(
        "deepseek",
        prefix=("<｜fim▁begin｜>",),
        suffix=("<｜fim▁hole｜>",),
        middle=("<｜fim▁end｜>",),
        ends=("<｜end▁of▁sentence｜>", "<|EOT|>"),
        naming="hash",
    ),
    Family(
        "seed",
        prefix=("<[fim-prefix]>",),
        suffix=("<[fim-suffix]>",),
        middle=("<[fim-middle]>",),
        ends=("<[end▁of▁sentence]>",),
    ),
    # GLM-4.5 and CodeGeeX 4.
    Family(
        "glm",
        prefix=("<|code_prefix|>",),
        suffix=("<|code_suffix|>",),
        middle=("<|code_middle|>",),
        ends=("<|endoftext|>", "<|user|>", "<|assistant|>"),
    ),
    Family(
        "falcon",
        prefix=("<|prefix|>",),
        suffix=("<|suffix|>",),
        middle=("<|middle|>",),
        ends=("<|endoftext|>", "<|end_of_text|>"),
    ),
    # Codestral: the suffix comes first and nothing marks the middle.
    Family(
        "codestral",
        prefix=("[PREFIX]",),
        suffix=("[SUFFIX]",),
        ends=("[MIDDLE]",),
        orders=("spm",),
        naming="plus",
    ),
)


def declared_orders(config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The fill-in-the-middle orders that a model's configuration says it was trained with."""
    own = (config or {}).get("atlasd")
    orders = own.get("fim_orders") if isinstance(own, Mapping) else None
    return tuple(map(str, orders)) if isinstance(orders, list | tuple) else ()
