"""The target's states of a stream: what a drafter that carries them begins with."""

from __future__ import annotations

import numpy as np

from atlasd.draft.drafter import Float32

ROOM = 512
"""Tokens of a stream whose states are kept; a static drafter looks back no further."""


class States:
    """By index in the stream, the state that chose the token there; the last ``room`` of them."""

    def __init__(self, hidden: int, room: int = ROOM) -> None:
        self.room = room
        self._rows = np.zeros((room, hidden), np.float32)
        self._index = np.full(room, -1, np.int64)
        self.addresses = self._rows.ctypes.data, self._index.ctypes.data
        """Of the states [room, hidden], float32, and of the indices they belong to, int64: whoever
        writes there does as ``put`` does."""

    def put(self, index: int, states: Float32) -> None:
        """``states`` [n, hidden] chose the tokens from ``index`` on."""
        room = self.room
        begin = index % room
        if len(states) == 1:
            self._rows[begin], self._index[begin] = states[0], index
            return
        if begin + len(states) <= room:  # nearly always, and several times as quick
            self._rows[begin : begin + len(states)] = states
            self._index[begin : begin + len(states)] = np.arange(index, index + len(states))
            return
        at = np.arange(index, index + len(states))[-room:]
        self._rows[at % room] = states[-room:]
        self._index[at % room] = at

    def of(self, begin: int, end: int) -> Float32 | None:
        """The states [end - begin, hidden] that chose tokens [begin, end), zeros where they are not
        known; None where none is."""
        at, room = np.arange(begin, end), self.room
        known = self._index[at % room] == at
        if not known.any():
            return None
        rows: Float32 = self._rows[at % room] * known[:, None]
        return rows
