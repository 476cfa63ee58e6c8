"""The target's states of a stream: what a drafter that carries them begins with."""

from __future__ import annotations

import numpy as np

from atlasd.draft.drafter import Float32

ROOM = 512
"""Tokens of a stream whose states are kept; a static drafter looks back no further."""


class States:
    """By index in the stream, the state that chose the token there; the last ``ROOM`` of them."""

    def __init__(self, hidden: int) -> None:
        self._rows = np.zeros((ROOM, hidden), np.float32)
        self._index = np.full(ROOM, -1)

    def put(self, index: int, states: Float32) -> None:
        """``states`` [n, hidden] chose the tokens from ``index`` on."""
        begin = index % ROOM
        if len(states) == 1:
            self._rows[begin], self._index[begin] = states[0], index
            return
        if begin + len(states) <= ROOM:  # nearly always, and several times as quick
            self._rows[begin : begin + len(states)] = states
            self._index[begin : begin + len(states)] = range(index, index + len(states))
            return
        at = np.arange(index, index + len(states))[-ROOM:]
        self._rows[at % ROOM] = states[-ROOM:]
        self._index[at % ROOM] = at

    def of(self, begin: int, end: int) -> Float32 | None:
        """The states [end - begin, hidden] that chose tokens [begin, end), zeros where they are not
        known; None where none is."""
        at = np.arange(begin, end)
        known = self._index[at % ROOM] == at
        if not known.any():
            return None
        rows: Float32 = self._rows[at % ROOM] * known[:, None]
        return rows
