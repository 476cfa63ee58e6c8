"""Which files hold which hashes: an inverted index in a few sorted arrays.

New files wait in a dictionary; every few of them become a sorted run, and runs of like size are
merged (a log-structured merge tree, O'Neil et al. 1996), so adding is cheap at any size and asking
looks at a handful of arrays. A file that changes gets a new number and its old one is dead until
the next merge drops it. Above a budget only hashes below a threshold stay, the same for all files:
a coordinated sample (Broder's sketches), in which overlaps can still be compared.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from atlasd.workspace.definitions import Hashes, distinct

Files = npt.NDArray[np.int32]
Run = tuple[Hashes, Files]
Pause = Callable[[], None]
_WAITING = 64
_WAITING_POSTINGS = 1 << 15
_RATIO = 3
_STEP = 1 << 15
"""Postings that are merged at a time: about a millisecond."""


def _at_once() -> None:
    """Nobody waits."""


class Postings:
    """Adding happens on one thread; asking may happen on another."""

    def __init__(self, budget: int = 3_000_000) -> None:
        self.budget = budget
        self._lock = threading.Lock()
        self._waiting: dict[int, Hashes] = {}
        self._runs: list[Run] = []
        self._sizes = np.zeros(1024, dtype=np.int32)
        self._threshold = 1 << 32
        self.alive = 0
        """Files held."""

    def __len__(self) -> int:
        """Postings held, dead ones included."""
        waiting = sum(len(hashes) for hashes in self._waiting.values())
        return waiting + sum(len(keys) for keys, _ in self._runs)

    def put(self, file: int, hashes: Hashes, pause: Pause = _at_once) -> None:
        """Add a file under a number never used before. ``pause`` is called between the steps of a
        merge; what is asked meanwhile is answered from before it."""
        with self._lock:
            while file >= len(self._sizes):
                self._sizes = np.concatenate([self._sizes, np.zeros_like(self._sizes)])
            self._sizes[file] = len(hashes) + 1
            self.alive += 1
            if self._threshold < 1 << 32:
                hashes = hashes[hashes < self._threshold]
            self._waiting[file] = hashes
            postings = sum(map(len, self._waiting.values()))
            full = len(self._waiting) >= _WAITING or postings >= _WAITING_POSTINGS
        if full:
            self._settle(pause)

    def drop(self, file: int) -> None:
        with self._lock:
            if file < len(self._sizes) and self._sizes[file]:
                self._sizes[file] = 0
                self.alive -= 1
            self._waiting.pop(file, None)

    def files(self, value: int) -> list[int]:
        """Files that hold a hash, in the order they were added."""
        key = np.array([value], dtype=np.uint32)
        runs, waiting, sizes = self._view()
        found = {int(f) for run in runs for f in _files_of(run, key)[1] if sizes[f]}
        found.update(f for f, hashes in waiting.items() if _holds(hashes, value))
        return sorted(found)

    def scores(self, hashes: Hashes, most: int = 1 << 30) -> list[tuple[int, float]]:
        """Files by how much of what they share is rare: the summed inverse document frequencies
        of shared hashes over those of all, less for long files (as in BM25). The ``most`` best,
        unsorted."""
        runs, waiting, sizes = self._view()
        hashes = hashes[hashes < self._threshold]
        if not len(hashes) or not self.alive:
            return []
        parts = [_files_of(run, hashes) for run in runs]
        for file, own in waiting.items():
            shared = np.flatnonzero(np.isin(hashes, own, assume_unique=True))
            parts.append((shared, np.full(len(shared), file, dtype=np.int32)))
        which = np.concatenate([part[0] for part in parts] or [np.zeros(0, np.int64)])
        owner = np.concatenate([part[1] for part in parts] or [np.zeros(0, np.int32)])
        living = sizes[owner] > 0
        which, owner = which[living], owner[living]
        frequency = np.bincount(which, minlength=len(hashes))
        weight = np.log((self.alive + 1) / (frequency + 0.5))
        weight[frequency == 0] = 0.0
        if (total := float(weight.sum())) <= 0:
            return []
        files = distinct(owner)
        score = np.bincount(np.searchsorted(files, owner), weights=weight[which]) / total
        lengths = sizes[files].astype(np.float64)
        average = float(sizes[sizes > 0].mean())
        score = score / (0.75 + 0.25 * np.maximum(1.0, lengths / average))
        if len(score) > most:
            best = np.argpartition(score, -most)[-most:]
            files, score = files[best], score[best]
        return [(int(f), float(s)) for f, s in zip(files, score, strict=True)]

    def _view(self) -> tuple[list[Run], dict[int, Hashes], npt.NDArray[np.int32]]:
        with self._lock:
            return list(self._runs), dict(self._waiting), self._sizes

    def _settle(self, pause: Pause = _at_once) -> None:
        """Turn what waits into a run and merge runs of like size. The arrays are built outside
        the lock: only this thread changes runs."""
        moved = dict(self._waiting)
        pause()
        runs = [*self._runs, _run_of(moved)]
        while len(runs) > 1 and len(runs[-2][0]) < _RATIO * len(runs[-1][0]):
            runs[-2:] = [self._merged(runs[-2], runs[-1], pause)]
        while sum(len(keys) for keys, _ in runs) > self.budget:
            self._threshold //= 2
            runs = [self._merged(run, _NOTHING, pause, below=self._threshold) for run in runs]
        with self._lock:
            self._runs = runs
            for file in moved:
                self._waiting.pop(file, None)

    def _merged(self, first: Run, second: Run, pause: Pause, below: int = 1 << 32) -> Run:
        """Living postings with hashes under ``below`` of two sorted runs as one, the first's before
        the second's of the same hash. Sorting them together would take three times the memory for
        a moment; and hashes spread evenly, so ranges of them are steps of one length."""
        total = len(first[0]) + len(second[0])
        keys, files = np.empty(total, dtype=np.uint32), np.empty(total, dtype=np.int32)
        bounds = np.linspace(0, below, total // _STEP + 2)[1:]
        start, filled = (0, 0), 0
        for bound in bounds.astype(np.uint64).tolist():
            pause()
            stop = (_count_below(first[0], bound), _count_below(second[0], bound))
            part = _zipped(
                self._living(first, slice(start[0], stop[0])),
                self._living(second, slice(start[1], stop[1])),
            )
            end = filled + len(part[0])
            keys[filled:end], files[filled:end] = part
            start, filled = stop, end
        # Nobody else has seen them yet.
        keys.resize(filled, refcheck=False)
        files.resize(filled, refcheck=False)
        return keys, files

    def _living(self, run: Run, within: slice) -> Run:
        keys, files = run[0][within], run[1][within]
        living = self._sizes[files] > 0
        return keys[living], files[living]


_NOTHING: Run = (np.zeros(0, dtype=np.uint32), np.zeros(0, dtype=np.int32))


def _count_below(keys: Hashes, bound: int) -> int:
    return len(keys) if bound > 0xFFFFFFFF else int(np.searchsorted(keys, np.uint32(bound)))


def _zipped(first: Run, second: Run) -> Run:
    total = len(first[0]) + len(second[0])
    places = np.searchsorted(first[0], second[0], "right") + np.arange(len(second[0]))
    from_first = np.ones(total, dtype=bool)
    from_first[places] = False
    keys, files = np.empty(total, dtype=np.uint32), np.empty(total, dtype=np.int32)
    for target, one, other in ((keys, first[0], second[0]), (files, first[1], second[1])):
        target[from_first], target[places] = one, other
    return keys, files


def _run_of(waiting: dict[int, Hashes]) -> Run:
    keys = np.concatenate(list(waiting.values()))
    lengths = [len(hashes) for hashes in waiting.values()]
    files = np.repeat(np.array(list(waiting), dtype=np.int32), lengths)
    order = np.argsort(keys, kind="stable")
    return keys[order], files[order]


def _files_of(run: Run, hashes: Hashes) -> tuple[npt.NDArray[np.int64], Files]:
    """For sorted hashes: (index of the hash, file) of every posting."""
    keys, files = run
    first = np.searchsorted(keys, hashes, "left")
    count = np.searchsorted(keys, hashes, "right") - first
    which = np.repeat(np.arange(len(hashes)), count)
    offsets = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
    return which, files[first[which] + offsets]


def _holds(hashes: Hashes, value: int) -> bool:
    at = int(np.searchsorted(hashes, np.uint32(value)))
    return at < len(hashes) and int(hashes[at]) == value
