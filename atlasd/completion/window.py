"""Which part of a long file the model sees: edges that stay put from one keystroke to the next,
so that what the engine has computed stays useful."""

from __future__ import annotations

from atlasd.completion.ports import TextTokenizer

STEP = 256
"""The left edge moves by this many tokens at once; between two moves, a prompt that grows at the
cursor only grows at its end."""

_CHARACTERS = 6
"""More than a token of source code has, on average; text beyond is not even tokenised."""


def prefix_window(tokenizer: TextTokenizer, prefix: str, budget: int) -> str:
    """The end of ``prefix``, at most ``budget`` tokens, from the beginning of a line."""
    if budget <= 0:
        return ""
    text = prefix[_coarse_edge(prefix, budget * _CHARACTERS) :]
    if len(text.encode()) <= budget:
        return text
    tokens = tokenizer.encode(text)
    if len(tokens) <= budget:
        return text
    step = min(STEP, max(1, budget // 4))
    dropped = -(-(len(tokens) - budget) // step) * step
    return _from_line_start(_after(tokenizer, text, tokens[:dropped]))


def suffix_window(tokenizer: TextTokenizer, suffix: str, budget: int) -> str:
    """The beginning of ``suffix``, at most ``budget`` tokens, to the end of a line where that
    costs less than half of it."""
    if budget <= 0:
        return ""
    text = suffix[: budget * _CHARACTERS]
    if len(text.encode()) > budget:
        tokens = tokenizer.encode(text)
        if len(tokens) > budget:
            text = text[: -len(_after(tokenizer, text, tokens[:budget])) or None]
    if len(text) == len(suffix):
        return text
    line_end = text.rfind("\n") + 1
    return text[:line_end] if line_end * 2 > len(text) else text


def _coarse_edge(text: str, length: int) -> int:
    """A line start at or after a multiple of ``length`` that leaves one to two lengths of text."""
    if len(text) < 2 * length:
        return 0
    edge = (len(text) - length) // length * length
    line = text.find("\n", edge, edge + length // 2)
    return line + 1 if line >= 0 else edge


def _after(tokenizer: TextTokenizer, text: str, tokens: list[int]) -> str:
    """The text that remains when these first tokens are taken off."""
    taken = sum(map(len, map(tokenizer.token_bytes, tokens)))
    return text.encode()[taken:].decode("utf-8", "ignore")


def _from_line_start(text: str) -> str:
    line = text.find("\n")
    return text[line + 1 :] if 0 <= line < len(text) // 2 else text
