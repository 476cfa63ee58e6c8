"""Definitions, similarity, edits and tokens, each against a plain model of itself."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.workspace.analysis import analyse, changed_lines, content_hash
from atlasd.workspace.definitions import (
    Definition,
    defined_names,
    definition,
    hashes_of,
    identifiers,
)
from atlasd.workspace.edits import BYTES, Edits
from atlasd.workspace.postings import Postings
from atlasd.workspace.repository import Repository
from atlasd.workspace.scan import scan
from atlasd.workspace.slices import slices
from atlasd.workspace.tokens import StepwiseTokenizer

SOURCES = {
    "python": (
        "import os\nLIMIT: int = 3\nasync def fetch(url):\n    local = 1\n    def inner(): pass\n"
        "class Client(Base):\n    def get(self): ...\nif x == 1: pass\n",
        ["LIMIT", "fetch", "inner", "Client", "get"],
    ),
    "typescript": (
        "import x from 'y'\nexport default function main() {}\nexport abstract class Shape {\n"
        "  private async area(scale: number): Promise<number> {\n    if (scale) {\n    }\n  }\n}\n"
        "export interface Point { x: number }\ntype Id = string\nexport const make = () => 1\n"
        "enum Color { Red }\nfunction* gen() {}\n",
        ["main", "Shape", "area", "Point", "Id", "make", "Color", "gen"],
    ),
    "javascript": (
        "const a = 1\nfunction b() {}\nclass C { }\nlet $d = 2\n",
        ["a", "b", "C", "$d"],
    ),
    "rust": (
        "pub(crate) async fn run<T>() {}\nstruct Point;\npub enum Kind { A }\ntrait Draw {}\n"
        "impl Draw for Point {\n    fn draw(&self) {}\n}\nmacro_rules! square { }\nmod inner;\n"
        "pub const MAX: u32 = 1;\nstatic mut COUNT: u8 = 0;\nunsafe extern \"C\" fn raw() {}\n",
        ["run", "Point", "Kind", "Draw", "draw", "square", "inner", "MAX", "COUNT", "raw"],
    ),
    "go": (
        "package main\nfunc main() {}\nfunc (s *Server) Handle(w int) error {\n\treturn nil\n}\n"
        "type Server struct {\n}\ntype (\n\tInner struct {\n\t}\n)\nvar Default = 1\n",
        ["main", "Handle", "Server", "Inner", "Default"],
    ),
    "c": (
        "#define MAX_LEN 10\nstatic int add(int a, int b) {\n  return a + b;\n}\n"
        "struct point {\n  int x;\n};\ntypedef struct {\n  int y;\n} pair_t;\nenum color { RED };\n"
        "char *name_of(struct point *p)\n{\n  if (p) { run(p); }\n}\nstruct point origin;\n",
        ["MAX_LEN", "add", "point", "pair_t", "color", "name_of"],
    ),
    "cpp": (
        "namespace geo {\nclass Shape : public Base {\n};\n}\ntemplate <typename T>\n"
        "T largest(T a, T b) {\n}\nvoid Shape::draw(int x) const {\n}\nShape::~Shape() {}\n",
        ["geo", "Shape", "largest", "draw", "~Shape"],
    ),
    "lua": (
        "local M = {}\nfunction M.setup(opts)\nend\nlocal function helper() end\n"
        "M.run = function() end\nfunction M:close() end\n",
        ["M", "setup", "helper", "run", "close"],
    ),
    "java": (
        "public class Main {\n    private static final List<String> names(int n) {\n    }\n}\n"
        "interface Shape {}\nrecord Pair(int a) {}\n",
        ["Main", "names", "Shape", "Pair"],
    ),
    "ruby": (
        "module Api\n  class Client\n    def self.open(x)\n    end\n"
        "    def get\n    end\n  end\nend\n",
        ["Api", "Client", "open", "get"],
    ),
    "shellscript": ("build() {\n  make\n}\nfunction deploy {\n  :\n}\n", ["build", "deploy"]),
}  # fmt: skip


@pytest.mark.parametrize("language", SOURCES)
def test_the_names_a_file_defines_are_found(language: str) -> None:
    text, wanted = SOURCES[language]
    found = [name for name, _ in defined_names(text, language)]
    assert sorted(set(wanted) - set(found)) == []
    assert sorted(set(found) - set(wanted)) == []


def definition_of(name: str, text: str, path: str, language: str) -> Definition:
    [start] = [start for known, start in defined_names(text, language) if known == name]
    return definition(text, path, name, start)


def test_a_definition_comes_with_its_head_and_no_more() -> None:
    text = (
        "x = 1\n\n@cache\ndef area(\n    width: int,\n) -> int:\n"
        '    """The area."""\n    return width\n\n\ndef other():\n    pass\n'
    )
    found = definition_of("area", text, "a.py", "python")
    assert (found.name, found.path, found.line) == ("area", "a.py", 3)
    assert found.text == (
        'def area(\n    width: int,\n) -> int:\n    """The area."""\n    return width'
    )
    found = definition_of("point", "struct point {\n  int x;\n};\nint y;\n", "a.h", "c")
    assert found.text == "struct point {\n  int x;\n};"
    long = "def long():\n" + "".join(f"    line_{n} = {n}\n" for n in range(100))
    found = definition_of("long", long, "a.py", "python")
    assert found.text.count("\n") == 11


@given(st.text(max_size=300), st.sampled_from([*SOURCES, "markdown", ""]))
def test_no_text_breaks_the_search_for_definitions(text: str, language: str) -> None:
    for name, start in defined_names(text, language):
        assert name
        assert 0 <= start <= len(text)


# postings

hash_sets = st.sets(st.integers(0, 30), max_size=8)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 5), hash_sets),
        st.tuples(st.just("drop"), st.integers(0, 5), st.just(set())),
        st.tuples(st.just("settle"), st.just(0), st.just(set())),
    ),
    max_size=60,
)


@settings(max_examples=80, deadline=None)
@given(operations, hash_sets)
def test_postings_hold_what_a_dictionary_holds(
    operations: list[tuple[str, int, set[int]]], asked: set[int]
) -> None:
    postings, model, numbers, following = Postings(), dict[int, set[int]](), dict[int, int](), 0
    for action, file, hashes in operations:
        if action == "settle" and postings._waiting:
            postings._settle()
        elif action in ("put", "drop"):
            if file in numbers:
                postings.drop(numbers[file])
                model.pop(numbers.pop(file))
            if action == "put":
                postings.put(following, np.array(sorted(hashes), dtype=np.uint32))
                numbers[file], model[following] = following, hashes
                following += 1
    assert postings.alive == len(model)
    for value in range(31):
        assert postings.files(value) == sorted(f for f, own in model.items() if value in own)
    scored = dict(postings.scores(np.array(sorted(asked), dtype=np.uint32)))
    assert set(scored) == {f for f, own in model.items() if own & asked}
    assert all(0 <= score <= 1 for score in scored.values())
    best = dict(postings.scores(np.array(sorted(asked), dtype=np.uint32), most=2))
    assert len(best) == min(2, len(scored))
    assert sorted(best.values()) == sorted(scored.values())[-2:]


def test_rare_names_count_more_than_common_ones() -> None:
    postings = Postings()
    common, rare = hashes_of(["self", "return"]), hashes_of(["zebra"])
    for file in range(500):
        postings.put(file, common)
    postings.put(500, rare)
    scored = dict(postings.scores(hashes_of(["self", "return", "zebra"])))
    assert max(scored, key=lambda file: scored[file]) == 500


def test_postings_stay_within_their_budget_and_still_rank() -> None:
    rng = np.random.default_rng(3)
    postings = Postings(budget=20_000)
    files = [np.unique(rng.integers(0, 1 << 32, 300, dtype=np.uint32)) for _ in range(400)]
    for number, hashes in enumerate(files):
        postings.put(number, hashes)
    assert len(postings) <= 20_000 + 64 * 300
    best = max(postings.scores(files[123]), key=lambda item: item[1])
    assert best[0] == 123


# edits


@given(st.text("ab\n", max_size=40), st.text("ab\n", max_size=40))
def test_changed_lines_hold_every_difference(old: str, new: str) -> None:
    from atlasd.workspace.edits import changed_lines as between

    first, last = between(old, new)
    lines, before = new.split("\n"), old.split("\n")
    if old == new:
        assert (first, last) == (0, 0)
        return
    assert 0 <= first < last <= len(lines)
    assert lines[:first] == before[:first]
    tail = len(lines) - last
    assert lines[len(lines) - tail :] == before[len(before) - tail :]


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_changed_line_checksums_hold_every_difference(old: list[int], new: list[int]) -> None:
    first, last = changed_lines(np.array(old, np.uint32), np.array(new, np.uint32))
    assert 0 <= first <= last <= len(new)
    if old == new:
        assert (first, last) == (0, 0)
    else:
        assert new[:first] == old[:first]
        assert new[last:] == (old[len(old) - (len(new) - last) :] if last < len(new) else [])


def test_edits_near_each_other_are_one_region_and_far_ones_are_not() -> None:
    edits, lines = Edits(), [f"line {n}" for n in range(100)]
    edits.note("a.py", "\n".join(lines), None)
    assert edits.recent(5) == []
    lines[50] = "changed"
    edits.note("a.py", "\n".join(lines), None)
    lines.insert(45, "inserted")
    edits.note("a.py", "\n".join(lines), None)
    [edit] = edits.recent(5)
    assert edit.text.split("\n") == lines[edit.line : edit.line + edit.text.count("\n") + 1]
    assert "changed" in edit.text
    assert "inserted" in edit.text
    lines[90] = "far away"
    edits.note("a.py", "\n".join(lines), None)
    [edit] = edits.recent(5)
    assert "far away" in edit.text
    assert "changed" not in edit.text


def test_recent_edits_are_newest_first_and_bounded() -> None:
    edits = Edits()
    for number in range(100):
        edits.note(f"{number}.py", f"new {number}", f"old {number}")
    assert [edit.path for edit in edits.recent(3)] == ["99.py", "98.py", "97.py"]
    assert edits.text("0.py", 0) is None
    for number in range(5):
        edits.note(f"big{number}.py", "x" * (BYTES // 3), "")
    assert [edit.path for edit in edits.recent(9)] == ["big4.py", "big3.py", "big2.py"]


# tokens


@given(st.text("ab \n\t", max_size=200), st.integers(1, 50))
def test_slices_put_together_are_the_text(text: str, size: int) -> None:
    pieces = slices(text, size)
    assert "".join(pieces) == text
    for piece, following in itertools.pairwise(pieces):
        assert piece.endswith("\n")
        assert not following[0].isspace()
    pieces = slices(text, size, 2 * size)
    assert "".join(pieces) == text
    assert all(len(piece) <= 2 * size + 1 for piece in pieces)


@given(st.lists(st.text("ab\n", max_size=5000), max_size=5))
@settings(deadline=None, max_examples=30)
def test_tokens_in_steps_are_the_tokens(texts: list[str]) -> None:
    longest = 0

    def tokenize(pieces: list[str]) -> list[list[int]]:
        nonlocal longest
        longest = max(longest, len(pieces))
        return [[ord(c) for c in piece] for piece in pieces]

    stepwise = StepwiseTokenizer(tokenize, "k")
    assert [t.decode("utf-32-le") for t in stepwise.encode(texts, lambda: None)] == texts
    assert longest <= 4


# the repository


def indexed(root: Path) -> Repository:
    repository = Repository(root, trusted=True)
    for found in filter(None, scan(root, repository.rules)):
        text = (root / found.path).read_text()
        repository.put(found, content_hash(text.encode()), analyse(text, found.language))
    return repository


def test_a_repository_answers_where_names_are_defined_and_what_is_similar(tmp_path: Path) -> None:
    (tmp_path / "geo.py").write_text("def polygon_area(points):\n    return shoelace(points)\n")
    (tmp_path / "draw.py").write_text(
        "def draw_polygon(canvas, points):\n    canvas.fill(points)\n"
    )
    (tmp_path / "mail.py").write_text("def send_letter(recipient, subject):\n    post(subject)\n")
    repository = indexed(tmp_path)
    found = repository.defining(["polygon_area", "missing", "send_letter"])
    assert [(d.name, d.path) for d in found] == [
        ("polygon_area", "geo.py"),
        ("send_letter", "mail.py"),
    ]
    wanted = identifiers("canvas.fill(points); draw_polygon()")
    assert repository.similar(wanted)[0][0] == "draw.py"
    assert repository.similar(wanted, exclude=["draw.py"])[0][0] == "geo.py"
    assert repository.similar([]) == []
    assert repository.similar(["nowhere_used"]) == []
    assert repository.files == ["draw.py", "geo.py", "mail.py"]
    repository.drop("draw.py")
    assert "draw.py" not in dict(repository.similar(wanted))
    assert repository.defining(["draw_polygon"]) == []


def test_text_is_always_that_of_the_file_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one = 1\n")
    repository = indexed(tmp_path)
    assert repository.text("a.py") == "one = 1\n"
    (tmp_path / "a.py").write_text("one, two = 1, 2\n")
    assert repository.text("a.py") == "one, two = 1, 2\n"
    (tmp_path / "a.py").unlink()
    assert repository.text("a.py") is None
    for path in ("../a.py", "/etc/passwd", ".env", "", "a/../../b.py"):
        assert repository.text(path) is None


def test_remembered_texts_are_bounded(tmp_path: Path) -> None:
    for number in range(8):
        (tmp_path / f"{number}.py").write_text(f"# {'-' * 90}\n" * 10_000)
    repository = indexed(tmp_path)
    for number in range(8):
        assert repository.text(f"{number}.py")
    assert repository._texts._used <= 4 << 20
