"""The windows of a long file that the model sees: their edges stay put while somebody types."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.completion.window import STEP, prefix_window, suffix_window
from tests.unit.byte_tokenizer import ByteTokenizer
from tests.unit.prompting import (
    TOKENIZER,
    source,
)


def test_a_short_prefix_is_whole() -> None:
    assert prefix_window(TOKENIZER, "abc", 10) == "abc"
    assert suffix_window(TOKENIZER, "abc", 10) == "abc"


def test_a_long_prefix_begins_at_a_line_and_fits() -> None:
    text = source(400)
    window = prefix_window(TOKENIZER, text, 1000)
    assert text.endswith(window)
    assert text[: -len(window)].endswith("\n")
    assert 1000 - STEP - 40 < len(TOKENIZER.encode(window)) <= 1000


def test_a_long_suffix_ends_with_a_line_and_fits() -> None:
    text = source(400)
    window = suffix_window(TOKENIZER, text, 500)
    assert text.startswith(window)
    assert window.endswith("\n")
    assert 460 < len(TOKENIZER.encode(window)) <= 500


def test_the_left_edge_moves_once_per_step_while_typing() -> None:
    text, typed = source(100), source(40, "other")
    edges = []
    for count in range(0, len(typed), 7):
        window = prefix_window(TOKENIZER, text + typed[:count], 1000)
        edges.append(len(text) + count - len(window))
    moves = sum(one != other for one, other in pairwise(edges))
    assert edges == sorted(edges)
    assert moves <= len(TOKENIZER.encode(typed)) / STEP + 1


@settings(deadline=None)
@given(
    st.text(alphabet="ab \n", max_size=300),
    st.text(alphabet="ab \n", max_size=80),
    st.integers(16, 200),
)
def test_windows_are_ends_of_the_text_within_the_budget(text: str, more: str, budget: int) -> None:
    tokenizer = ByteTokenizer()
    for whole in (text, text + more):
        window = prefix_window(tokenizer, whole, budget)
        assert whole.endswith(window)
        assert len(tokenizer.encode(window)) <= budget
        assert len(window) == len(whole) or len(window) > 0
        below = suffix_window(tokenizer, whole, budget)
        assert whole.startswith(below)
        assert len(tokenizer.encode(below)) <= budget


@settings(deadline=None)
@given(st.integers(0, 2998), st.integers(200, 1200))
def test_typing_a_character_moves_the_edge_by_nothing_or_a_step(length: int, budget: int) -> None:
    tokenizer = ByteTokenizer()
    text = ("x" * 29 + "\n") * 100
    before = length - len(prefix_window(tokenizer, text[:length], budget))
    after = length + 1 - len(prefix_window(tokenizer, text[: length + 1], budget))
    step = min(STEP, budget // 4)
    assert after == before or step - 30 <= after - before <= step + 30 + budget
