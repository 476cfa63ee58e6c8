"""Windows and context stay where they are while somebody types, so that prefixes stay cached."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.completion.budget import Budget
from atlasd.completion.context import Context
from atlasd.completion.languages import PYTHON
from atlasd.completion.prompt import PromptBuilder
from atlasd.completion.remembering import RememberingTokenizer
from atlasd.completion.request import CompletionRequest
from atlasd.completion.templates import template_for
from atlasd.completion.window import STEP, prefix_window, suffix_window
from atlasd.engine.protocol import StreamStats
from tests.unit.byte_tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer(words=["    ", "self", "return", "value", " = "])


def source(lines: int, name: str = "value") -> str:
    return "".join(f"    self.{name}_{n} = {name} * {n}\n" for n in range(lines))


def common(first: list[int], second: list[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(first, second, strict=False)
    return next(
        (index for index, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second))
    )


# Windows


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


# Prompts


@dataclass
class Definition:
    name: str
    path: str
    line: int
    text: str


@dataclass
class Edit:
    path: str
    text: str
    at: float = 0.0


@dataclass
class Repository:
    root: Path = Path("/repo")
    name: str = "demo"
    trusted: bool = True
    texts: dict[str, str] = field(default_factory=dict)
    definitions: list[Definition] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    alike: list[tuple[str, float]] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        return list(self.texts)

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def defining(self, names, limit=8):
        wanted = list(names)
        return [each for each in self.definitions if each.name in wanted][:limit]

    def recent(self, limit=8):
        return self.edits[:limit]

    def similar(self, identifiers, exclude=(), limit=4):
        return [each for each in self.alike if each[0] not in exclude][:limit]


@dataclass
class Workspace:
    repository: Repository

    def repository_of(self, path):
        return self.repository if str(path).startswith("/repo/") else None


def a_repository() -> Repository:
    helper = "def load_shapes(path):\n    return json.loads(path.read_text())\n"
    alike = "class Square:\n    def area(self):\n        return self.width * self.width\n"
    return Repository(
        texts={"io.py": helper, "square.py": alike, "old.py": source(200)},
        definitions=[Definition("load_shapes", "io.py", 0, helper)],
        edits=[Edit("old.py", source(200))],
        alike=[("square.py", 0.5)],
    )


def builder(repository: Repository, orders: tuple[str, ...], slot: int = 1200) -> PromptBuilder:
    tokenizer = RememberingTokenizer(TOKENIZER)
    return PromptBuilder(tokenizer, template_for(tokenizer, orders), Workspace(repository), slot)


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
            CompletionRequest(before + typed[:count], after, path="/repo/main.py", max_tokens=100)
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
                CompletionRequest(source(900), source(900), path="/repo/main.py", max_tokens=64)
            )
            assert len(built.prompt.tokens) + 64 <= slot


def test_context_has_what_is_named_what_was_edited_and_what_is_alike() -> None:
    request = CompletionRequest(
        "class Circle:\n    def area(self):\n        self.width = load_shapes(self.value_1)\n"
        "        self.value_2 = 1\n        ",
        "\n",
        path="/repo/main.py",
        max_tokens=64,
    )
    built = builder(a_repository(), ("spm",), 6000).build(request)
    names = [part.name for part in built.prompt.parts]
    assert names[0] == "repository"
    assert set(names[1:-4]) == {"io.py", "old.py", "square.py"}
    assert names[-4:] == ["file", "suffix", "prefix", "middle"]


def test_nothing_is_gathered_for_the_untrusted_or_where_it_is_not_wanted() -> None:
    request = CompletionRequest("x = load_shapes(", "", path="/repo/main.py", max_tokens=64)
    repository = a_repository()
    build = builder(repository, ("spm",)).build
    assert "io.py" in [part.name for part in build(request).prompt.parts]
    distrusted = CompletionRequest(
        "x = load_shapes(", "", path="/repo/main.py", max_tokens=64, trusted=False
    )
    assert "io.py" not in [part.name for part in build(distrusted).prompt.parts]
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


# Context


def gather(context: Context, repository: Repository, prefix: str, room: int = 4000) -> list[str]:
    found = context.gather(repository, "main.py", prefix, "", PYTHON, room)
    return [piece.path for piece in found]


def test_pieces_keep_their_places_and_new_ones_come_behind_them() -> None:
    repository = a_repository()
    repository.edits = repository.alike = []
    repository.definitions.append(Definition("area_of", "geometry.py", 3, "def area_of(s): ...\n"))
    repository.texts["geometry.py"] = "\n\n\ndef area_of(s): ...\n"
    context = Context(fresh_s=0.0)
    first = gather(context, repository, "x = area_of(1)\n")
    assert first == ["geometry.py"]
    assert gather(context, repository, "x = area_of(1)\ny = load_shapes(x)\n") == [
        "geometry.py",
        "io.py",
    ]
    far = "x = area_of(1)\ny = load_shapes(x)\n" + "z = 1\n" * 400
    assert gather(context, repository, far) == ["geometry.py", "io.py"]


def test_a_name_called_on_the_line_brings_its_definition_at_once() -> None:
    repository = a_repository()
    repository.edits = repository.alike = []
    context = Context(fresh_s=0.0)
    assert gather(context, repository, "x = ") == []
    assert gather(context, repository, "x = load_shapes") == []
    assert gather(context, repository, "x = load_shapes(") == ["io.py"]
    assert gather(context, repository, "x = load_shapes(pa") == ["io.py"]


def test_what_nobody_calls_for_any_more_is_let_go_in_the_end() -> None:
    repository = a_repository()
    repository.edits = repository.alike = []
    context = Context(fresh_s=0.0)
    text = "x = load_shapes(1)\n"
    gather(context, repository, text)
    seen = []
    for _ in range(12):
        text += "y = 'nothing of that kind at all, " + "x" * 300 + "'\n"
        seen.append(gather(context, repository, text))
    assert seen[2] == ["io.py"]
    assert seen[-1] == []


def test_a_definition_that_changed_is_shown_as_it_is_now() -> None:
    repository = a_repository()
    repository.edits = repository.alike = []
    context = Context(fresh_s=0.0)
    gather(context, repository, "x = load_shapes(1)\n")
    changed = "def load_shapes(path, strict=True): ...\n"
    repository.definitions[0].text = repository.texts["io.py"] = changed
    found = context.gather(repository, "main.py", "x = load_shapes(1)\n\n", "", PYTHON, 4000)
    assert [piece.text for piece in found] == [changed]


def test_the_same_text_is_shown_once_and_the_file_itself_never() -> None:
    repository = a_repository()
    repository.edits = [Edit("io.py", repository.texts["io.py"]), Edit("main.py", source(20))]
    repository.alike = [("io.py", 0.9), ("copy.py", 0.8)]
    repository.texts["copy.py"] = repository.texts["io.py"]
    found = gather(Context(), repository, "x = load_shapes(json, path, read_text)\n")
    assert found == ["io.py"]


def test_pieces_stay_within_their_room() -> None:
    repository = a_repository()
    found = Context().gather(
        repository, "main.py", "load_shapes(self.value_1, self.value_2)\n", "", PYTHON, 300
    )
    assert sum(len(piece.text) for piece in found) <= 300


# Budget


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
