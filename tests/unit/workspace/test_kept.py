"""What is kept of a file's text: within its budget, and never of another version."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.workspace import repository as repository_module
from atlasd.workspace.analysis import analyse, content_hash
from atlasd.workspace.kept import Kept
from atlasd.workspace.repository import Repository
from atlasd.workspace.scan import Found


@given(
    st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 2), st.integers(1, 6)), max_size=40)
)
def test_values_are_of_the_version_asked_for_and_within_the_budget(
    puts: list[tuple[str, int, int]],
) -> None:
    kept: Kept[tuple[int, int]] = Kept(10)
    latest: dict[str, tuple[int, int]] = {}
    for path, version, size in puts:
        kept.put(path, version, (version, size), size)
        latest[path] = (version, size)
        found = {p: value for p, value in latest.items() if kept.get(p, value[0]) is not None}
        assert all(kept.get(p, value[0]) == value for p, value in found.items())
        assert all(kept.get(p, value[0] + 1) is None for p, value in latest.items())
        assert path in found
        assert len(found) == 1 or sum(size for _, size in found.values()) <= 10


def test_what_was_asked_for_last_is_kept_longest() -> None:
    kept: Kept[str] = Kept(2)
    kept.put("a", 1, "A", 1)
    kept.put("b", 1, "B", 1)
    assert kept.get("a", 1) == "A"
    kept.put("c", 1, "C", 1)
    assert (kept.get("a", 1), kept.get("b", 1), kept.get("c", 1)) == ("A", None, "C")
    kept.drop("a")
    kept.drop("a")
    assert kept.get("a", 1) is None


def test_a_file_is_looked_through_for_definitions_once_a_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    honest = repository_module.defined_names

    def watched(text: str, language: str | None) -> list[tuple[str, int]]:
        looked.append(text)
        return honest(text, language)

    monkeypatch.setattr(repository_module, "defined_names", watched)
    text = "def area(w):\n    return w\n\n\nclass Shape:\n    pass\n"
    (tmp_path / "a.py").write_text(text)
    repository = Repository(tmp_path, trusted=True)
    found = Found("a.py", "python", len(text), 1)
    repository.put(found, content_hash(text.encode()), analyse(text, "python"))
    for _ in range(3):
        assert [one.line for one in repository.defining(["area", "Shape"])] == [0, 4]
    assert looked == [text]
    repository.note_buffer("a.py", "\n" + text)
    assert [one.line for one in repository.defining(["area", "Shape"])] == [1, 5]
    assert looked == [text, "\n" + text]
    repository.drop("a.py")
    assert repository.defining(["area"]) == []
