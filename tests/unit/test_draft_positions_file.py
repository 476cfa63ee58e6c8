"""What the position index writes to disk: what may be kept, and nothing else that it has seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from atlasd.draft import positions_files
from atlasd.draft.positions_index import PositionIndex


def ids(first: int) -> np.ndarray:
    return np.arange(first, first + 400, dtype=np.int32)


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
