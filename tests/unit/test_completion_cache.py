"""The type-through cache against a naive model that keeps whole documents."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from atlasd.completion.cache import ENTRY_BYTES, TypeThrough, wanted
from atlasd.completion.request import CompletionRequest
from atlasd.engine.protocol import Sampling

text = st.text(alphabet="ab\n", max_size=6)
kinds = st.sampled_from(["code", "chat"])


@dataclass
class Naive:
    """All that was ever put, newest last."""

    entries: list[tuple[str, str, str, str]] = field(default_factory=list)

    def put(self, kind: str, prefix: str, suffix: str, text: str) -> None:
        place = (kind, prefix, suffix)
        self.entries = [entry for entry in self.entries if entry[:3] != place]
        self.entries.append((*place, text))

    def find(self, kind: str, prefix: str, suffix: str) -> set[str]:
        """Every rest that would be right."""
        rests = set()
        for known, before, after, text in self.entries:
            if (known, after) != (kind, suffix):
                continue
            if before == prefix and not text:
                rests.add("")
            for typed in range(len(text)):
                if before + text[:typed] == prefix and text[typed:].strip():
                    rests.add(text[typed:])
        return rests


class Typing(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cache: TypeThrough[int] = TypeThrough()
        self.naive = Naive()

    @rule(kind=kinds, prefix=text, suffix=text, said=text)
    def suggest(self, kind: str, prefix: str, suffix: str, said: str) -> None:
        self.cache.put(kind, prefix, suffix, said, 0, 1)
        self.naive.put(kind, prefix, suffix, said)

    @rule(kind=kinds, prefix=text, suffix=text)
    def ask(self, kind: str, prefix: str, suffix: str) -> None:
        hit = self.cache.find(kind, prefix, suffix)
        rests = self.naive.find(kind, prefix, suffix)
        assert (hit is not None) == bool(rests)
        assert hit is None or hit.text in rests

    @invariant()
    def nothing_is_kept_that_is_not_counted(self) -> None:
        assert len(self.cache) == len(self.naive.entries)
        assert self.cache.bytes >= ENTRY_BYTES * len(self.cache)


TestTyping = Typing.TestCase
TestTyping.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_the_bytes_are_bounded_and_the_least_recently_used_goes_first() -> None:
    cache: TypeThrough[int] = TypeThrough(most_bytes=3 * (ENTRY_BYTES + 40))
    for number in range(3):
        cache.put("k", f"prefix {number}", "", "0123456789", 0, number)
    assert cache.find("k", "prefix 0", "") is not None
    cache.put("k", "prefix 3", "", "0123456789", 0, 3)
    assert cache.find("k", "prefix 0", "") is not None
    assert cache.find("k", "prefix 1", "") is None
    assert len(cache) == 3
    cache.clear()
    assert (len(cache), cache.bytes) == (0, 0)


@pytest.mark.parametrize(
    ("typed", "closed", "found"),
    [
        ("foo(", ")", True),
        ("foo(", "", True),
        ("foo", ")", False),
        ("foo(a, ", ")", True),
        ('foo(a, "', '")', True),
        ("foo(", "]", False),
    ],
)
def test_brackets_that_the_editor_closed_meanwhile(typed: str, closed: str, found: bool) -> None:
    cache: TypeThrough[int] = TypeThrough()
    cache.put("k", "x = ", "\n", 'foo(a, "b")', 0, 1)
    hit = cache.find("k", "x = " + typed, closed + "\n")
    assert (hit is not None) is found
    if hit is not None:
        assert typed + hit.text == 'foo(a, "b")'
        assert hit.closed == len(closed)


def test_what_was_asked_for_tells_suggestions_apart_but_not_the_client() -> None:
    request = CompletionRequest("a", client="vim", path="/a", document="1")
    same = CompletionRequest("a", client="code", path=None, max_tokens=7)
    warm = CompletionRequest("a", sampling=Sampling(temperature=1.0))
    assert wanted(request) == wanted(same)
    assert wanted(request) != wanted(warm)
    assert wanted(request) != wanted(CompletionRequest("a", single_line=True))
