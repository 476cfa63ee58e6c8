"""A tokenizer whose tokens are bytes, with any special tokens: text lengths are token counts."""

from __future__ import annotations

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

    def encode(self, text: str, special: bool = False) -> list[int]:
        data, tokens, at = text.encode("utf-8", "surrogatepass"), [], 0
        while at < len(data):
            if special:
                spelled = next((c for c in self.control if data.startswith(c.encode(), at)), None)
                if spelled is not None:
                    tokens.append(self.control[spelled])
                    at += len(spelled.encode())
                    continue
            word = max(
                (w for w in self.words if data.startswith(w, at)),
                key=len,
                default=data[at : at + 1],
            )
            tokens.append(self.words.get(word, data[at]))
            at += len(word)
        return tokens

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
