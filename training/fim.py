"""Fill-in-the-middle documents: holes are cut at characters, in either order, and always end.

prefix first  <|fim_prefix|>{p}<|fim_suffix|>{s}<|fim_middle|>{m}<|endoftext|>
suffix first  <|fim_suffix|>{s}<|fim_prefix|>{p}<|fim_middle|>{m}<|endoftext|>
"""

import random
from collections.abc import Callable
from typing import NamedTuple

PREFIX, SUFFIX, MIDDLE, END = "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|endoftext|>"


class Hole(NamedTuple):
    prefix: str
    middle: str
    suffix: str


def window(text: str, size: int, rng: random.Random) -> str:
    """Whole lines of about `size` characters; half of the time the beginning of the file."""
    if len(text) <= size:
        return text
    start = 0 if rng.random() < 0.5 else text.rfind("\n", 0, rng.randrange(len(text) - size)) + 1
    end = text.find("\n", start + size)
    return text[start : len(text) if end < 0 else end + 1][: 2 * size]


def cursor(text: str, rng: random.Random) -> int | None:
    """A position before a character that is not blank: something remains to be typed."""
    for _ in range(20):
        at = rng.randrange(len(text))
        if not text[at].isspace():
            return at
    return None


def rest_of_line(text: str, rng: random.Random) -> Hole | None:
    at = cursor(text, rng)
    if at is None:
        return None
    end = text.find("\n", at)
    end = len(text) if end < 0 else end
    return Hole(text[:at], text[at:end], text[end:])


def several_lines(text: str, rng: random.Random) -> Hole | None:
    """From a cursor, or a line's first character, to the end of one of the next lines."""
    at = cursor(text, rng)
    if at is None:
        return None
    if rng.random() < 0.4:
        at = text.rfind("\n", 0, at) + 1
    end = at
    for _ in range(rng.choice((2, 2, 3, 3, 4, 5, 6, 8, 10))):
        following = text.find("\n", end + 1)
        if following < 0:
            break
        end = following
    return Hole(text[:at], text[at:end], text[end:]) if end > at else rest_of_line(text, rng)


def span(text: str, rng: random.Random) -> Hole:
    """Any two characters, at most 400 apart."""
    at = rng.randrange(len(text))
    end = min(len(text), at + 1 + int(rng.random() ** 2 * 400))
    return Hole(text[:at], text[at:end], text[end:])


def cut(text: str, rng: random.Random) -> Hole:
    kind = rng.random()
    found = None
    if kind < 0.5:
        found = rest_of_line(text, rng)
    elif kind < 0.85:
        found = several_lines(text, rng)
    return found or span(text, rng)


def document(hole: Hole, suffix_first: bool) -> str:
    before = (
        f"{SUFFIX}{hole.suffix}{PREFIX}{hole.prefix}"
        if suffix_first
        else f"{PREFIX}{hole.prefix}{SUFFIX}{hole.suffix}"
    )
    return f"{before}{MIDDLE}{hole.middle}{END}"


def encode(
    encode_text: Callable[[str], list[int]], hole: Hole, suffix_first: bool, ids: dict[str, int]
) -> list[int]:
    """Tokens of `document`, each part encoded alone: a cursor does not respect tokens."""
    prefix, middle, suffix = (encode_text(part) for part in hole)
    before = (
        [ids[SUFFIX], *suffix, ids[PREFIX], *prefix]
        if suffix_first
        else [ids[PREFIX], *prefix, ids[SUFFIX], *suffix]
    )
    return [*before, ids[MIDDLE], *middle, ids[END]]
