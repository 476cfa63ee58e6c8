"""Tables that have grown slot by slot are read alike in Python and in native code."""

from __future__ import annotations

import numpy as np
import pytest
from atlasd_kernels.cpu.text import text_library

from atlasd.draft.drafter import StreamView
from atlasd.draft.native import NativeMixture
from atlasd.draft.ngrams import FIRST_SLOTS
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.recycle import Recycle

LIBRARY = text_library()


@pytest.mark.skipif(LIBRARY is None, reason="the native library was not built here")
def test_native_code_inserts_and_finds_where_python_does() -> None:
    assert LIBRARY is not None
    plain = PositionIndex(16 << 20)
    native = NativeMixture(PositionIndex(16 << 20), Recycle(50_000), LIBRARY)
    chooser = np.random.default_rng(1)
    texts = [chooser.integers(0, 50_000, 2000).astype(np.int32) for _ in range(60)]
    for number, text in enumerate(texts):
        for index in (plain, native.positions.index):
            index.put(str(number), "r", "file", text)
    grown = native.positions.index.tables
    assert FIRST_SLOTS < len(grown[0].heads) < 2 * FIRST_SLOTS
    for table, of_native in zip(plain.tables, grown, strict=True):
        assert table.heads.tolist() == of_native.heads.tolist()
    for number in (0, 30, 59):
        text = texts[number].tolist()
        stream = StreamView(number, text[500:600], 100, "r", "python")
        native.begin(stream)
        assert native.propose(stream, [], 8).tokens == text[600:608]
        native.end(stream)
