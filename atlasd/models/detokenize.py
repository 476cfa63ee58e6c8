"""Streaming text out of tokens: only complete characters leave."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from atlasd.models.tokenizer import Tokenizer


class Detokenizer:
    """Turns tokens into text as they come. A character whose bytes are spread over several tokens
    is held back until it is complete; bytes that can never become one give U+FFFD."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def feed(self, ids: Iterable[int]) -> str:
        """The text that these tokens complete; may be empty."""
        return self._decoder.decode(b"".join(map(self._tokenizer.token_bytes, ids)))

    def flush(self) -> str:
        """What is left when no more tokens come: U+FFFD for an incomplete character."""
        return self._decoder.decode(b"", final=True)
