"""A tokenizer that does not tokenise the same text again with every keystroke."""

from __future__ import annotations

from collections import OrderedDict

from atlasd.completion.ports import TextTokenizer

SHORTEST = 64
"""Characters below which looking up costs as much as tokenising."""
MOST_CHARACTERS = 2_000_000


class RememberingTokenizer:
    """Remembers the tokens of texts that were used lately; see ``TextTokenizer``."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self.vocab_size = tokenizer.vocab_size
        self.eos_ids = tokenizer.eos_ids
        self.prefix_ids = tokenizer.prefix_ids
        self.chat_template = tokenizer.chat_template
        self.token_bytes = tokenizer.token_bytes
        self.token_id = tokenizer.token_id
        self._tokenizer = tokenizer
        self._known: OrderedDict[tuple[str, bool], list[int]] = OrderedDict()
        self._characters = 0

    def encode(self, text: str, special: bool = False) -> list[int]:
        """The ids of a text; the list belongs to the tokenizer and must not be changed."""
        if len(text) < SHORTEST:
            return self._tokenizer.encode(text, special)
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
