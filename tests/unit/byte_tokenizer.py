"""A tokenizer whose tokens are bytes, with any special tokens: text lengths are token counts."""

from __future__ import annotations

import re
from collections.abc import Sequence

FIM = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>")


class ByteTokenizer:
    """Bytes are 0..255; words may be added as further tokens; control tokens come last."""

    def __init__(
        self,
        control: Sequence[str] = ("<|endoftext|>", *FIM),
        *,
        words: Sequence[str] = (),
        chat_template: str | None = None,
        eos: str = "<|endoftext|>",
        start: Sequence[str] = (),
    ) -> None:
        self.words = {word.encode(): 256 + index for index, word in enumerate(words)}
        first = 256 + len(words)
        self.control = {text: first + index for index, text in enumerate(control)}
        self.names = {token: text for text, token in self.control.items()}
        self.spelled = {token: word for word, token in self.words.items()}
        self.vocab_size = first + len(control)
        self.eos_ids = [self.control[eos]] if eos in self.control else []
        self.prefix_ids = [self.control[each] for each in start]
        self.chat_template = chat_template
        longest_first = sorted(map(re.escape, self.words), key=len, reverse=True)
        self._word_pattern = re.compile(b"|".join([*longest_first, b"."]), re.DOTALL)
        self._control_pattern = re.compile(f"({'|'.join(map(re.escape, control))})")

    def encode(self, text: str, special: bool = False) -> list[int]:
        data = text.encode("utf-8", "surrogatepass")
        if special:
            parts = self._control_pattern.split(text)
            return [
                token
                for part in parts
                for token in ([self.control[part]] if part in self.control else self.encode(part))
            ]
        if not self.words:
            return list(data)
        found = self._word_pattern.findall(data)
        return [self.words.get(piece, piece[0]) for piece in found]

    def decode(self, ids: Sequence[int]) -> str:
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def token_bytes(self, id: int) -> bytes:
        if id < 256:
            return bytes([id])
        return self.spelled.get(id, b"")

    def token_id(self, text: str) -> int | None:
        if text in self.control:
            return self.control[text]
        return self.words.get(text.encode())

    def shown(self, ids: Sequence[int]) -> str:
        """The tokens as text, control tokens by name."""
        return "".join(
            self.names.get(token) or self.token_bytes(token).decode("latin-1") for token in ids
        )
