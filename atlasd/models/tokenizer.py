"""Text to token ids and back, without torch and without transformers.

The vocabulary comes from tokenizer.json, or is built from a GGUF file's metadata; either way the
``tokenizers`` library does the work. Bytes of single tokens are known, so text can be streamed and
cut anywhere.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from atlasd.errors import ModelError
from atlasd.models.gguf_vocabulary import tokenizer_from_gguf
from atlasd.models.locate import ModelFiles

CONTROL = re.compile(r"<[^<>\s]+>|\[[A-Z_]+\]|<\[[^\[\]\s]+\]>")
"""Added tokens that look like this steer the model: text that merely contains them is text."""

END_OF_TURN = (
    "<|endoftext|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end_of_text|>",
    "<|EOT|>",
    "<｜end▁of▁sentence｜>",
)
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")

LONG = 1 << 14
"""Characters that take several milliseconds to tokenise."""


class Tokenizer:
    """A model's tokenizer. Thread-safe; encoding releases the GIL."""

    chat_template: str | None
    """The model's own jinja template, if it has one."""

    prefix_ids: list[int]
    """Tokens that every prompt starts with: the beginning of sequence, for models that use one."""

    eos_ids: list[int]
    """Tokens that end a text or a turn."""

    def __init__(
        self, inner: tokenizers.Tokenizer, settings: dict[str, Any], eos: list[int] | None = None
    ) -> None:
        """``settings`` is tokenizer_config.json or its equivalent; ``eos`` further end tokens."""
        self._inner = inner
        self._added = inner.get_added_tokens_decoder()
        # Before guarding: a tool call's markers, say, are not special, and clients want them.
        self._skipped = {token for token, added in self._added.items() if added.special}
        _guard(inner)
        inner.encode_special_tokens = True
        self._byte_level = b'"ByteLevel"' in _state(inner.decoder)
        self.vocab_size = max(inner.get_vocab().values(), default=-1) + 1
        self.chat_template = _chat_template(settings)
        self.prefix_ids = inner.encode("").ids
        self.eos_ids = self._end_tokens(settings, eos or [])

    @classmethod
    def load(cls, files: ModelFiles) -> Tokenizer:
        """The tokenizer of a model. Raises ModelError if it has none that can be read."""
        if files.kind == "gguf":
            inner, settings, eos = tokenizer_from_gguf(files.path)
            return cls(inner, settings, eos)
        file = files.path / "tokenizer.json"
        try:
            inner = tokenizers.Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises plain Exception for all that is wrong
            if not file.is_file():
                raise ModelError(
                    f"{files.path} has no tokenizer.json.",
                    "Save it with AutoTokenizer.from_pretrained(...).save_pretrained(folder).",
                ) from None
            raise ModelError(f"{file} cannot be read ({error}).", "Download it again.") from None
        settings = _read_json(files.path / "tokenizer_config.json")
        template = files.path / "chat_template.jinja"
        if template.is_file():
            settings["chat_template"] = template.read_text(encoding="utf-8")
        ends = [files.config, _read_json(files.path / "generation_config.json")]
        return cls(inner, settings, [id for end in ends for id in _ids(end)])

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text. Only with ``special`` are control tokens in the text recognised."""
        if not special:
            return self._plain(text)
        if self._splits is None:
            return _tokens_of(self._parser, text)
        ids: list[int] = []
        for part in self._splits.split(text):
            known = self._controls.get(part)
            ids += self._plain(part) if known is None else [known]
        return ids

    def _plain(self, text: str) -> list[int]:
        return _tokens_of(self._inner, text)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """The ids of many texts, on the library's own threads. Nothing special is recognised."""
        encoded = self._inner.encode_batch_fast(texts, add_special_tokens=False)
        return [each.ids for each in encoded]

    def decode(self, ids: list[int]) -> str:
        """The text of the ids; control tokens are left out, broken UTF-8 becomes U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, id: int) -> bytes:
        """The bytes a token stands for: empty for control tokens and ids without a token."""
        known = self._bytes.get(id)
        if known is None:
            known = self._bytes[id] = self._compute_bytes(id)
        return known

    def serialized(self) -> str:
        """The vocabulary in the format of tokenizer.json, control tokens marked as special."""
        return self._inner.to_str()

    def token_text(self, id: int) -> str | None:
        """The vocabulary entry of an id, as the vocabulary spells it."""
        return self._inner.id_to_token(id)

    def token_id(self, text: str) -> int | None:
        """The id of a vocabulary entry, control tokens included."""
        return self._inner.token_to_id(text)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of vocabulary and merges: equal for models that can draft for each other."""
        added = sorted((id, each.content) for id, each in self._added.items())
        digest = hashlib.sha256(_state(self._inner.model))
        digest.update(json.dumps(added).encode())
        return digest.hexdigest()[:16]

    @cached_property
    def line_ends(self) -> list[int]:
        """The tokens that end a line: all that hold a newline."""
        newline = next(spelling for spelling, byte in BYTE_OF.items() if byte == ord("\n"))
        spellings = (newline,) if self._byte_level else ("\n", "<0x0A>")
        return sorted(
            id
            for text, id in self._inner.get_vocab().items()
            if any(spelling in text for spelling in spellings) and id not in self._skipped
        )

    @cached_property
    def _bytes(self) -> dict[int, bytes]:
        return {}

    def _compute_bytes(self, id: int) -> bytes:
        if id in self._skipped:
            return b""
        if added := self._added.get(id):
            return added.content.encode("utf-8")
        text = self._inner.id_to_token(id)
        if text is None:
            return b""
        if self._byte_level:
            try:
                return bytes(BYTE_OF[character] for character in text)
            except KeyError:
                return text.encode("utf-8")
        if byte := BYTE_TOKEN.fullmatch(text):
            return bytes([int(byte[1], 16)])
        return text.replace("▁", " ").encode("utf-8")

    @cached_property
    def _controls(self) -> dict[str, int]:
        """The tokens that are recognised only when asked for."""
        known = self._inner.get_added_tokens_decoder()
        return {added.content: id for id, added in known.items() if added.special}

    @cached_property
    def _splits(self) -> re.Pattern[str] | None:
        """Cuts a text at its control tokens, the longest first; None where they also take spaces
        with them, or where the text's beginning is encoded differently."""
        known = self._inner.get_added_tokens_decoder().values()
        prefixed = b'"add_prefix_space":true' in _state(self._inner.pre_tokenizer)
        spaced = any(each.lstrip or each.rstrip for each in known)
        if prefixed or spaced or not self._byte_level:
            return None
        longest = sorted(self._controls, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest)) + ")" if longest else "(?!)")

    @cached_property
    def _parser(self) -> tokenizers.Tokenizer:
        """A copy that recognises control tokens, because that is a setting of the whole object."""
        return tokenizers.Tokenizer.from_str(self._inner.to_str())

    def _end_tokens(self, settings: dict[str, Any], ids: list[int]) -> list[int]:
        named = settings.get("eos_token")
        names = [named.get("content") if isinstance(named, dict) else named, *END_OF_TURN]
        found = [self.token_id(name) for name in names if name]
        return list(dict.fromkeys([*ids, *(id for id in found if id is not None)]))


def _state(part: Any) -> bytes:
    """A tokenizer's part as JSON."""
    return bytes(part.__getstate__()) if part is not None else b""


def _byte_characters() -> dict[str, int]:
    """GPT-2's printable character for each byte, inverted (bytes_to_unicode in its encoder.py)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    characters = {chr(byte): byte for byte in printable}
    return characters | {chr(256 + n): byte for n, byte in enumerate(others)}


BYTE_OF = _byte_characters()


def _guard(inner: tokenizers.Tokenizer) -> None:
    """Mark as special every added token that steers the model but is not marked so.

    Qwen2.5's fill-in-the-middle tokens are ordinary added tokens; a source file that spells one
    must not become one.
    """
    unmarked = [
        added
        for added in inner.get_added_tokens_decoder().values()
        if not added.special and CONTROL.fullmatch(added.content)
    ]
    if unmarked:
        inner.add_special_tokens(
            [
                tokenizers.AddedToken(
                    added.content,
                    single_word=added.single_word,
                    lstrip=added.lstrip,
                    rstrip=added.rstrip,
                    normalized=added.normalized,
                    special=True,
                )
                for added in unmarked
            ]
        )


def _tokens_of(inner: tokenizers.Tokenizer, text: str) -> list[int]:
    if len(text) > LONG:
        # Only by the batch does the library let other threads run meanwhile.
        return inner.encode_batch_fast([text], add_special_tokens=False)[0].ids
    return inner.encode(text, add_special_tokens=False).ids


def _chat_template(settings: dict[str, Any]) -> str | None:
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template}
        template = named.get("default")
    return template if isinstance(template, str) else None


def _ids(config: Any) -> list[int]:
    value = config.get("eos_token_id")
    return [value] if isinstance(value, int) else [int(id) for id in value or []]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
