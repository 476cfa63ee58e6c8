"""A tokenizer that does not tokenise the same text again with every keystroke."""

from __future__ import annotations

import re
from collections import OrderedDict

from atlasd.completion.ports import TextTokenizer

BLOCK = 1000
"""Characters after which a long text is cut at the next line that allows it."""
SHORTEST = 64
"""Characters below which looking up costs as much as tokenising."""
MOST_CHARACTERS = 2_000_000

_ANY_LINE = re.compile(r"(?<=\n)(?=[ \t]*[^\s])")
_LINE_END = re.compile(r"(?<=[^\s])(?=\n)")
_PROBES = ("x = 1;\n{}y(2)\n", "# a\n{}@b\n", "foo()\n{}return é\n", "}}\n{}'s\n", ",\n\n{}-1\n")


class _Spelled(dict[int, bytes]):
    """Bytes of tokens, looked up once."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        super().__init__()
        self._tokenizer = tokenizer

    def __missing__(self, token: int) -> bytes:
        data = self[token] = self._tokenizer.token_bytes(token)
        return data


class RememberingTokenizer:
    """Remembers the tokens of texts that were used lately; see ``TextTokenizer``.

    Long texts are tokenised in blocks of lines, so that of a text that grew at its end only the
    end is new. Blocks begin only where this tokenizer's tokens never cross the border: behind the
    line break (Qwen, Llama 3), in front of it (GPT-2's rule), or nowhere; a few probes tell.
    """

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.vocab_size = tokenizer.vocab_size
        self.eos_ids = tokenizer.eos_ids
        self.prefix_ids = tokenizer.prefix_ids
        self.chat_template = tokenizer.chat_template
        self.token_bytes = _Spelled(tokenizer).__getitem__
        self.token_id = tokenizer.token_id
        self._tokenizer = tokenizer
        self._border = self._find_border()
        self._known: OrderedDict[tuple[str, bool], list[int]] = OrderedDict()
        self._characters = 0

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text; the list belongs to the tokenizer and must not be changed."""
        if len(text) < SHORTEST:
            return self._tokenizer.encode(text, special)
        if self._border is None or len(text) < 2 * BLOCK:
            return self._remembered(text, special)
        tokens: list[int] = []
        start = 0
        while start < len(text):
            border = self._border.search(text, start + BLOCK)
            end = border.start() if border else len(text)
            tokens += self._remembered(text[start:end], special)
            start = end
        return tokens

    def clear(self) -> None:
        """Forget the texts."""
        self._known.clear()
        self._characters = 0

    def _remembered(self, text: str, special: bool) -> list[int]:
        key = (text, special)
        tokens = self._known.get(key)
        if tokens is not None:
            self._known.move_to_end(key)
            return tokens
        tokens = self._known[key] = self._tokenizer.encode(text, special)
        self._characters += len(text)
        while self._characters > MOST_CHARACTERS and len(self._known) > 1:
            (oldest, _), _ = self._known.popitem(last=False)
            self._characters -= len(oldest)
        return tokens

    def _find_border(self) -> re.Pattern[str] | None:
        texts = [probe.format(indent) for probe in _PROBES for indent in ("", "    ", "\t", " ")]
        for border in (_ANY_LINE, _LINE_END):
            if all(self._separable(text, border) for text in texts):
                return border
        return None

    def _separable(self, text: str, border: re.Pattern[str]) -> bool:
        found = border.search(text)
        assert found is not None
        parts = text[: found.start()], text[found.start() :]
        return self._tokenizer.encode(text) == [
            token for part in parts for token in self._tokenizer.encode(part)
        ]
