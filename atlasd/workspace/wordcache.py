"""Tokenising source text word by word from memory, several times quicker than the library.

A byte-pair tokenizer first cuts a text into words and then looks only at one word at a time. Code
repeats its words, so nearly all of them have been seen before; what is left is cutting, which the
``regex`` module does much quicker than the library with its offsets. The same tokens come out:
every tokenizer is tried on a sample first, and whatever is not known to come out the same (another
kind of tokenizer, text that would be normalised, added tokens in it) goes to the library.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

import regex  # type: ignore[import-untyped]
import tokenizers
from tokenizers.models import BPE

from atlasd.workspace.slices import slices
from atlasd.workspace.tokens import Pack, Tokenize, pack

WORDS = 50_000
"""Words remembered; then all are forgotten, and the frequent ones are soon there again."""

_NEW = 256
"""New words that the library is given at a time, with a pause between two times."""
_WHOLE = 1 << 12
"""Characters of whole text that it is given at a time."""

# What the library's ByteLevel cuts at when it has no pattern of its own (GPT-2's encoder.py).
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_SAMPLE = (
    "import os\n\n\nclass Fée(Base):\n\tdef f(self, x1=0x1F, *args):  # it's  1234567\n"
    "        return {'a': [1, 2.5e-3]} if x != y else \"…\"\n\n  \n}\r\n\r\n\t\tif (a&&b)  ;\n   "
)


def by_words(tokenize: Tokenize) -> Pack | None:
    """The same tokens, packed and quicker, if ``tokenize`` is the ``encode_batch`` of a
    ``models.Tokenizer`` that works word by word; None if it has to be left to the library."""
    inner = getattr(getattr(tokenize, "__self__", None), "_inner", None)
    pattern = _word_pattern(inner) if isinstance(inner, tokenizers.Tokenizer) else None
    if inner is None or pattern is None:
        return None
    # Added tokens that are recognised in plain text.
    added = inner.get_added_tokens_decoder().values()
    words = _Words(tokenize, pattern, [token.content for token in added if not token.special])
    return words.pack if words.agrees(_SAMPLE) else None


class _Words:
    """Used by the indexing thread alone."""

    def __init__(self, tokenize: Tokenize, pattern: str, added: list[str]) -> None:
        self._tokenize = tokenize
        quick, full = _ascii(pattern), regex.compile(pattern)
        self._find_words, self._first_word = full.findall, full.match
        self._find_ascii_words = quick.findall if quick else self._find_words
        self._first_ascii_word = quick.match if quick else self._first_word
        self._added = _any_of(added)
        self._known: dict[str, bytes] = {}

    def agrees(self, text: str) -> bool:
        expected = self._whole(text)
        # Once with new words and once with known ones.
        return self.pack([text]) == [expected] == self.pack([text])

    def pack(self, texts: list[str], pause: Callable[[], None] = lambda: None) -> list[bytes]:
        return [self._packed(text, pause) for text in texts]

    def _packed(self, text: str, pause: Callable[[], None]) -> bytes:
        if not text.isascii() and not unicodedata.is_normalized("NFC", text):
            return self._in_steps(text, pause)
        if self._added and self._added.search(text):
            return self._in_steps(text, pause)
        words = self._find_ascii_words(text) if text.isascii() else self._find_words(text)
        pause()
        try:
            packed = b"".join(map(self._known.__getitem__, words))
        except KeyError:
            if not self._learn(set(words), pause):
                return self._in_steps(text, pause)
            packed = b"".join(map(self._known.__getitem__, words))
        # What the pattern leaves out would be missing.
        return packed if sum(map(len, words)) == len(text) else self._in_steps(text, pause)

    def _in_steps(self, text: str, pause: Callable[[], None]) -> bytes:
        parts: list[bytes] = []
        for piece in slices(text, _WHOLE, 2 * _WHOLE):
            pause()
            parts.append(self._whole(piece))
        return b"".join(parts)

    def _whole(self, text: str) -> bytes:
        return pack(self._tokenize([text])[0])

    def _learn(self, words: set[str], pause: Callable[[], None]) -> bool:
        """Have words that are new tokenised; False if that cannot be done one by one."""
        new = list(words.difference(self._known))
        if len(self._known) + len(new) > WORDS:
            self._known.clear()
            new = list(words)
        if len(new) > WORDS:
            return False
        for start in range(0, len(new), _NEW):
            pause()
            some = new[start : start + _NEW]
            if not all(map(self._is_one, some)):
                return False
            self._known.update(zip(some, map(pack, self._tokenize(some)), strict=True))
        return True

    def _is_one(self, word: str) -> bool:
        """Whether a word that stands alone is cut as it was in its text."""
        first = (self._first_ascii_word if word.isascii() else self._first_word)(word)
        return first is not None and first.end() == len(word)


def _word_pattern(inner: tokenizers.Tokenizer) -> str | None:
    """The regular expression a tokenizer cuts words with, if that is all it does."""
    model = inner.model
    if not isinstance(model, BPE) or model.dropout or model.continuing_subword_prefix:
        return None
    if _state(inner.normalizer) not in (None, {"type": "NFC"}):
        return None
    cutter = _state(inner.pre_tokenizer) or {}
    steps = cutter.get("pretokenizers", [cutter])
    last = steps[-1]
    if last.get("type") != "ByteLevel" or last["add_prefix_space"]:
        return None
    if len(steps) == 1 and last["use_regex"]:
        return _GPT2
    if len(steps) != 2 or last["use_regex"] or steps[0]["type"] != "Split":
        return None
    kind = (steps[0]["behavior"], steps[0]["invert"])
    pattern = steps[0]["pattern"].get("Regex")
    return pattern if kind in (("Isolated", False), ("Removed", True)) else None


def _any_of(tokens: list[str]) -> re.Pattern[str] | None:
    return re.compile("|".join(map(re.escape, tokens))) if tokens else None


def _ascii(pattern: str) -> re.Pattern[str] | None:
    """The pattern for texts of ASCII alone, for Python's own module: it is twice as quick."""
    parts: list[str] = []
    in_class = False
    for part in re.findall(r"\\p\{\w+\}|\\.|.", pattern, re.DOTALL):
        if letters := {r"\p{L}": "a-zA-Z", r"\p{N}": "0-9"}.get(part):
            part = letters if in_class else f"[{letters}]"
        elif part in "[]":
            in_class = part == "["
        parts.append(part)
    try:
        return re.compile("".join(parts), re.ASCII)
    except re.error:
        return None


def _state(part: Any) -> Any:
    """A tokenizer's part as its JSON says it; not all of it, which would be megabytes."""
    return None if part is None else json.loads(part.__getstate__())
