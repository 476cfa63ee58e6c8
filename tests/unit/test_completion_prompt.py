"""Windows and context stay where they are while somebody types, so that prefixes stay cached."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from atlasd.completion.budget import Budget
from atlasd.completion.request import CompletionRequest
from atlasd.engine.protocol import StreamStats
from tests.unit.prompting import (
    TOKENIZER,
    a_repository,
    builder,
    common,
    source,
)


@pytest.mark.parametrize(("orders", "computed_again"), [(("psm", "spm"), 16), (("psm",), 320)])
def test_one_more_character_in_a_long_prompt_keeps_all_before_it(
    orders: tuple[str, ...], computed_again: int
) -> None:
    """At most the typed end is new, and in prefix-first order the suffix behind it."""
    build = builder(a_repository(), orders).build
    before = "from io import load_shapes\n" + source(90) + "    shapes = load_shapes("
    after = ")\n" + source(40, "rest")
    typed = "path_of_shapes"
    prompts = [
        build(
            CompletionRequest(
                *(before + typed[:count], after),
                path="/repo/main.py",
                max_tokens=100,
                trusted=True,
            )
        ).prompt.tokens
        for count in range(len(typed) + 1)
    ]
    assert min(map(len, prompts)) > 950
    for one, other in pairwise(prompts):
        assert len(other) - common(one, other) <= computed_again


def test_the_prompt_never_exceeds_the_slot() -> None:
    for slot in (200, 600, 2048):
        for orders in (("psm",), ("spm",)):
            built = builder(a_repository(), orders, slot).build(
                CompletionRequest(
                    *(source(900), source(900)),
                    path="/repo/main.py",
                    max_tokens=64,
                    trusted=True,
                )
            )
            assert len(built.prompt.tokens) + 64 <= slot


def test_context_has_what_is_named_what_was_edited_and_what_is_alike() -> None:
    request = CompletionRequest(
        "class Circle:\n    def area(self):\n        self.width = load_shapes(self.value_1)\n"
        "        self.value_2 = 1\n        ",
        "\n",
        path="/repo/main.py",
        max_tokens=64,
        trusted=True,
    )
    built = builder(a_repository(), ("spm",), 6000).build(request)
    names = [part.name for part in built.prompt.parts]
    assert names[0] == "repository"
    assert set(names[1:-4]) == {"io.py", "old.py", "square.py"}
    assert names[-4:] == ["file", "suffix", "prefix", "middle"]


def test_nothing_is_gathered_for_the_untrusted_or_where_it_is_not_wanted() -> None:
    request = CompletionRequest(
        "x = load_shapes(", "", path="/repo/main.py", max_tokens=64, trusted=True
    )
    repository = a_repository()
    build = builder(repository, ("spm",)).build
    assert "io.py" in [part.name for part in build(request).prompt.parts]
    for unwanted in (replace(request, trusted=False), replace(request, gather=False)):
        assert "io.py" not in [part.name for part in build(unwanted).prompt.parts]
    repository.trusted = False
    assert "io.py" not in [part.name for part in build(request).prompt.parts]


@pytest.mark.parametrize(
    ("path", "repository", "shown"),
    [
        ("/repo/src/a.py", None, "src/a.py"),
        ("src/a.py", "/repo", "src/a.py"),
        ("/elsewhere/a.py", None, "a.py"),
        ("/elsewhere/b/a.py", "/elsewhere", "b/a.py"),
        ("a.py", None, "a.py"),
    ],
)
def test_the_model_is_told_the_path_in_the_repository(
    path: str, repository: str | None, shown: str
) -> None:
    request = CompletionRequest("x", "", path=path, repository=repository)
    tokens = builder(a_repository(), ("spm",)).build(request).prompt.tokens
    assert f"<|file_sep|>{shown}\n<|fim_suffix|>" in TOKENIZER.shown(tokens)


def prefilled(tokens: int, ms: float) -> StreamStats:
    return StreamStats(prefilled_tokens=tokens, prefill_ms=ms)


@pytest.mark.parametrize(
    ("tokens_per_s", "size"), [(100, 512), (500, 512), (1000, 1024), (1400, 2048), (90_000, 4096)]
)
def test_prompts_are_as_long_as_can_be_read_quickly(tokens_per_s: int, size: int) -> None:
    budget = Budget()
    for _ in range(3):
        budget.observe(prefilled(1000, 1000 / tokens_per_s * 1000))
    assert budget.tokens == size


def test_one_slow_moment_does_not_change_the_length_of_prompts() -> None:
    budget = Budget()
    for ms in (100, 9000, 100, 100):
        budget.observe(prefilled(1000, ms))
    assert budget.tokens == 4096
    budget.observe(prefilled(3, 9000))
    assert budget.tokens == 4096


def test_an_answer_of_any_length_leaves_half_the_slot_to_the_prompt() -> None:
    builder_ = builder(a_repository(), ("spm",), slot=1200)
    request = CompletionRequest(source(400), "", max_tokens=1 << 40)
    assert 400 < len(builder_.build(request).prompt.tokens) <= 600
