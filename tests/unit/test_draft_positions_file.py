"""What the position index writes to disk: what may be kept, and nothing else that it has seen."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from atlasd.draft import positions_files
from atlasd.draft.positions_index import PositionIndex
from tests.unit.full_disk import at_most


def ids(first: int) -> np.ndarray:
    return np.arange(first, first + 400, dtype=np.int32)


def test_nothing_is_left_of_an_index_that_was_purged(tmp_path: Path) -> None:
    index = PositionIndex(1 << 20)
    index.put("file", "mine", "file", ids(1000))
    path = tmp_path / "positions.index"
    positions_files.save(index, path, "tokenizer")
    assert path.exists()
    index.drop_repository(None)
    positions_files.save(index, path, "tokenizer")
    assert not path.exists()
    positions_files.save(index, path, "tokenizer")


def test_a_byte_that_changed_on_disk_is_noticed(tmp_path: Path) -> None:
    index = PositionIndex(1 << 20)
    for number in range(4):
        index.put(str(number), "mine", "file", ids(1000 * number))
    path = tmp_path / "positions.index"
    positions_files.save(index, path, "tokenizer")
    raw = path.read_bytes()
    chooser = random.Random(1)
    begin = raw.index(b'"clock"')  # in the header that anything follows from, or in an array
    for at in (begin + 8, *(chooser.randrange(begin, len(raw)) for _ in range(20))):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        copy = PositionIndex(1 << 20)
        assert not positions_files.load(copy, path, "tokenizer")
        assert list(copy) == []
        copy.put("new", "mine", "file", ids(5000))
        assert copy.read(copy.segments["mine", "new"]).tolist() == ids(5000).tolist()


@pytest.mark.parametrize("forgotten", ["stream", "released", "dropped", "repository"])
def test_text_that_was_given_up_is_in_no_file(tmp_path: Path, forgotten: str) -> None:
    """Its places in the arena are free, but they still hold its tokens: those of prompts, of
    workspaces that are not trusted, of repositories that were purged."""
    index = PositionIndex(1 << 20)
    gone = index.put("gone", "other", "stream" if forgotten == "stream" else "file", ids(70_000))
    kept = index.put("kept", "mine", "file", ids(1000))
    if forgotten == "released":
        index.release(gone)
    elif forgotten == "dropped":
        index.drop("gone", "other")
    elif forgotten == "repository":
        index.drop_repository("other")
    path = tmp_path / "positions.index"
    positions_files.save(index, path, "tokenizer")
    raw = path.read_bytes()
    assert ids(70_000)[:4].tobytes() not in raw
    assert ids(1000)[:4].tobytes() in raw
    copy = PositionIndex(1 << 20)
    assert positions_files.load(copy, path, "tokenizer")
    assert [copy.read(each).tolist() for each in copy] == [index.read(kept).tolist()]


def test_a_disk_without_room_costs_the_file_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index = PositionIndex(1 << 20)
    index.put("file", "mine", "file", ids(1000))
    path = tmp_path / "positions.index"
    positions_files.save(index, path, "tokenizer")
    with at_most(5000):
        positions_files.save(index, path, "tokenizer")
    # What stood there before might have been purged since.
    assert list(tmp_path.iterdir()) == []
    assert "could not be written" in caplog.text
    positions_files.save(index, path, "tokenizer")
    assert positions_files.load(PositionIndex(1 << 20), path, "tokenizer")
