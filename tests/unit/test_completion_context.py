"""Pieces of other files: which are chosen, and that they stay where they are."""

from __future__ import annotations

import time

from atlasd.completion.candidates import Spot
from atlasd.completion.context import Context
from atlasd.completion.languages import PYTHON
from tests.unit.prompting import (
    Definition,
    Edit,
    Repository,
    a_repository,
    source,
)


def gather(context: Context, repository: Repository, prefix: str, room: int = 4000) -> list[str]:
    found = context.gather(Spot(repository, "main.py", prefix, "", PYTHON), room)
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


def test_a_line_of_data_makes_nobody_wait() -> None:
    began = time.thread_time()
    gather(Context(), a_repository(), 'data = "' + "deadbeef" * 20_000)
    assert time.thread_time() - began < 1


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
    spot = Spot(repository, "main.py", "x = load_shapes(1)\n\n", "", PYTHON)
    assert [piece.text for piece in context.gather(spot, 4000)] == [changed]


def test_the_same_text_is_shown_once_and_the_file_itself_never() -> None:
    repository = a_repository()
    repository.edits = [Edit("io.py", repository.texts["io.py"]), Edit("main.py", source(20))]
    repository.alike = [("io.py", 0.9), ("copy.py", 0.8)]
    repository.texts["copy.py"] = repository.texts["io.py"]
    found = gather(Context(), repository, "x = load_shapes(json, path, read_text)\n")
    assert found == ["io.py"]


def test_pieces_stay_within_their_room() -> None:
    repository = a_repository()
    prefix = "load_shapes(self.value_1, self.value_2)\n"
    found = Context().gather(Spot(repository, "main.py", prefix, "", PYTHON), 300)
    assert sum(len(piece.text) for piece in found) <= 300
