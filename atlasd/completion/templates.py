"""A prompt from its parts, in the format the model was trained with.

Which format that is, the tokenizer's own special tokens tell; never the model's name. Text is
encoded without recognising special tokens, so a file that contains ``<|fim_middle|>`` is just a
file that contains these characters.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from atlasd.completion.families import FAMILIES, Family, Order, Spellings
from atlasd.completion.healing import take_back
from atlasd.completion.languages import Language
from atlasd.completion.ports import TextTokenizer
from atlasd.completion.request import Piece


@dataclass(frozen=True)
class Part:
    """A named run of prompt tokens; the names are what ``atlasd why`` shows."""

    name: str
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Prompt:
    """What the engine is given, and what ends the answer."""

    parts: tuple[Part, ...]
    stop_tokens: tuple[int, ...]
    stop: tuple[str, ...] = ()
    taken_back: tuple[int, ...] = ()
    """The token taken off the prompt's end that the model is to choose anew (token healing)."""

    @property
    def tokens(self) -> list[int]:
        return [token for part in self.parts for token in part.tokens]

    @property
    def prefix_end(self) -> int:
        """How many tokens end with the text before the cursor, where others follow; else 0."""
        end = found = 0
        for part in self.parts[:-1]:
            end += len(part.tokens)
            if part.name == "prefix":
                found = end
        return found

    @property
    def hash(self) -> str:
        """Tells prompts apart without showing them: the same hash, the same text to be decoded."""
        given = array("i", [*self.tokens, -1, *self.taken_back]).tobytes()
        return blake2b(given, digest_size=8).hexdigest()


@dataclass(frozen=True)
class Surroundings:
    """The parts of a prompt, already cut to size."""

    prefix: str
    suffix: str
    language: Language
    path: str | None = None
    repository: str | None = None
    pieces: tuple[Piece, ...] = ()


class Template(Protocol):
    """One way to ask a model for the text at a cursor."""

    name: str
    stop_tokens: tuple[int, ...]
    stop: tuple[str, ...]
    markers: tuple[str, ...]
    """Spellings of the model's special tokens, which a suggestion must not contain."""
    uses_suffix: bool

    def prompt(self, around: Surroundings) -> Prompt: ...


class FillInTheMiddle:
    """The template of a family, for one tokenizer. Whole documents were cut at characters when
    these models were trained, so the cursor may stand inside a token and nothing is healed."""

    uses_suffix = True

    def __init__(self, family: Family, order: Order, tokenizer: TextTokenizer) -> None:
        self.name = f"{family.name} {order}"
        self.order = order
        self._family = family
        self._tokenizer = tokenizer
        self._prefix = _required(tokenizer, family.prefix)
        self._suffix = _required(tokenizer, family.suffix)
        self._middle = _find(tokenizer, family.middle)
        self._repository = _find(tokenizer, family.repository)
        self._separator = _find(tokenizer, family.separator)
        spellings = [
            *(family.prefix + family.suffix + family.middle),
            *(family.repository + family.separator + family.pad + family.ends),
        ]
        # llama.cpp's rule: pad, repository and separator end the text like end-of-text does.
        ends = (tokenizer.token_id(each) for each in spellings)
        found = [*tokenizer.eos_ids, *(token for token in ends if token is not None)]
        self.stop_tokens = tuple(dict.fromkeys(found))
        self.markers = tuple(each.strip("▁") for each in spellings)
        self.stop: tuple[str, ...] = ("\n+++++ ",) if family.naming == "plus" else ()

    def prompt(self, around: Surroundings) -> Prompt:
        separate = self._separator is not None and "separators" in self._family.naming
        context = self._context(around) if separate else []
        inside = "" if separate else _inline_context(around, self._family)
        if separate and around.path and self._family.naming == "separators inside":
            inside = f"{around.path}\n"
        prefix = Part("prefix", (self._prefix, *self._text(inside + around.prefix)))
        suffix = Part("suffix", (self._suffix, *self._text(around.suffix, joined=True)))
        middle = () if self._middle is None else (Part("middle", (self._middle,)),)
        hole = (suffix, prefix) if self.order == "spm" else (prefix, suffix)
        start = _start(self._tokenizer)
        return Prompt((*start, *context, *hole, *middle), self.stop_tokens, self.stop)

    def _context(self, around: Surroundings) -> list[Part]:
        """Repository, other files and this file's name, by separator tokens."""
        assert self._separator is not None
        parts = []
        if around.repository and self._repository is not None:
            name = self._text(f"{around.repository}\n")
            parts.append(Part("repository", (self._repository, *name)))
        for piece in around.pieces:
            text = self._text(f"{piece.path}\n{piece.text.rstrip()}\n")
            parts.append(Part(piece.path, (self._separator, *text)))
        if self._family.naming == "separators inside":
            if around.pieces or around.repository:
                parts.append(Part("file", (self._separator,)))
        elif around.path:
            parts.append(Part("file", (self._separator, *self._text(f"{around.path}\n"))))
        return parts

    def _text(self, text: str, joined: bool = False) -> list[int]:
        if joined and self._family.word_starts and text:
            # SentencePiece would put a space in front; behind a line break it does not.
            return self._tokenizer.encode(f"\n{text}")[len(self._tokenizer.encode("\n")) :]
        return self._tokenizer.encode(text)


class RepositoryPrefix(FillInTheMiddle):
    """For models that know a family's repository tokens and continue better than they fill: the
    same context, then the text before the cursor with its last token healed. What is right of the
    cursor is left to trimming."""

    uses_suffix = False

    def __init__(self, family: Family, tokenizer: TextTokenizer) -> None:
        super().__init__(family, family.orders[0], tokenizer)
        self.name = f"{family.name} prefix"

    def prompt(self, around: Surroundings) -> Prompt:
        context = [] if self._separator is None else self._context(around)
        kept, taken = take_back(self._tokenizer, self._text(around.prefix))
        parts = (*_start(self._tokenizer), *context, Part("prefix", kept))
        return Prompt(_begun(self._tokenizer, parts), self.stop_tokens, self.stop, taken)


class PlainPrefix:
    """For models without a format of their own: the text before the cursor, and nothing after.

    Such models saw whole tokens only, so the last one is taken off and healed.
    """

    name = "plain prefix"
    markers: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    uses_suffix = False

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self.stop_tokens = tuple(tokenizer.eos_ids)

    def prompt(self, around: Surroundings) -> Prompt:
        text = comments(around) + around.prefix
        kept, taken = take_back(self._tokenizer, self._tokenizer.encode(text))
        parts = (*_start(self._tokenizer), Part("prefix", kept))
        return Prompt(_begun(self._tokenizer, parts), self.stop_tokens, self.stop, taken)


def template_for(
    tokenizer: TextTokenizer, orders: Sequence[str] = (), chat: Template | None = None
) -> Template:
    """The best template the tokenizer allows.

    ``orders`` are those that the model declares it was trained with (``atlasd.fim_orders`` in its
    configuration); suffix-first is preferred, because what is typed then comes last and all before
    it stays cached. A list that begins with "prefix" says that the model continues better than it
    fills. ``chat`` is used for chat models without a format for filling in.
    """
    for family in FAMILIES:
        if _fits(tokenizer, family):
            if "prefix" in orders[:1]:
                return RepositoryPrefix(family, tokenizer)
            trained = [order for order in ("spm", "psm") if order in orders]
            order: Order = "spm" if trained[:1] == ["spm"] else family.orders[0]
            return FillInTheMiddle(family, order, tokenizer)
    if chat is not None and tokenizer.chat_template:
        return chat
    return PlainPrefix(tokenizer)


def _fits(tokenizer: TextTokenizer, family: Family) -> bool:
    needed = [family.prefix, family.suffix, *([family.middle] if family.middle else [])]
    if any(_find(tokenizer, spellings) is None for spellings in needed):
        return False
    # Qwen and CodeGemma share the three; the separator tells them apart, where there is one.
    others = {
        each
        for other in FAMILIES
        if other is not family and other.prefix == family.prefix
        for each in other.separator
    }
    has_other = any(tokenizer.token_id(each) is not None for each in others)
    return _find(tokenizer, family.separator) is not None or not has_other


def comments(around: Surroundings) -> str:
    """Other files and this file's path as comments, for models that know no better way."""
    mark = around.language.line_comment or "#"
    blocks = [
        "\n".join([f"{mark} Path: {piece.path}", *_commented(piece.text, mark)]) + "\n\n"
        for piece in around.pieces
    ]
    if around.path:
        blocks.append(f"{mark} Path: {around.path}\n")
    return "".join(blocks)


def _commented(text: str, mark: str) -> list[str]:
    return [f"{mark} {line}".rstrip() for line in text.rstrip().split("\n")]


def _inline_context(around: Surroundings, family: Family) -> str:
    """Context in front of the prefix for families without separator tokens."""
    if family.naming == "comments" or family.naming.startswith("separators"):
        return comments(around)
    mark, gap = ("#", "\n") if family.naming == "hash" else ("+++++ ", "\n\n")
    named = [f"{mark}{piece.path}\n{piece.text.rstrip()}{gap}" for piece in around.pieces]
    return "".join([*named, f"{mark}{around.path}\n" if around.path else ""])


def _start(tokenizer: TextTokenizer) -> tuple[Part, ...]:
    first = tuple(tokenizer.prefix_ids)
    return (Part("start", first),) if first else ()


def _begun(tokenizer: TextTokenizer, parts: tuple[Part, ...]) -> tuple[Part, ...]:
    """A model needs at least one token to go on from, in an empty document as well."""
    if any(part.tokens for part in parts):
        return parts
    return (Part("start", tuple(tokenizer.eos_ids[:1])), *parts)


def _find(tokenizer: TextTokenizer, spellings: Spellings) -> int | None:
    found = (tokenizer.token_id(each) for each in spellings)
    return next((token for token in found if token is not None), None)


def _required(tokenizer: TextTokenizer, spellings: Spellings) -> int:
    token = _find(tokenizer, spellings)
    assert token is not None, spellings
    return token
