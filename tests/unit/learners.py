"""A learner over the table drafter, what is served to it, and how much it knows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import thread_time

import numpy as np

from atlasd.draft.drafter import StreamView
from atlasd.draft.lookahead import Lookahead, Noise
from atlasd.draft.neural import Neural
from atlasd.learn.files import AdapterFiles
from atlasd.learn.learner import Learner
from atlasd.learn.passages import TOP
from atlasd.learn.versions import Key
from tests.unit.learning import VOCAB, FlatCosts, Table, walk

GREEDY = Noise(0.0, 0, 0, 0)
KEY = Key("tokens", "target", "table")


def learner(
    folder: Path | None = None,
    key: Key = KEY,
    head: np.ndarray | None = None,
    target: Reading | None = None,
) -> Learner:
    table = Table(head)
    neural = Neural(table)
    neural.token_ms = 0.05
    files = AdapterFiles(folder, key) if folder is not None else None
    return Learner(table, neural, FlatCosts(), files=files, target=target)


def serve(one: Learner, texts: list[list[int]], repository: str | None = "/r", **more) -> None:
    for text in texts:
        stream = StreamView(1, text, 8, repository, **more)
        one.begin(stream)
        one.end(stream)


def work(one: Learner, most: int = 4000) -> int:
    """Idle slices until nothing is left; how many."""
    slices = 1
    while one.idle(5.0) and slices < most:
        slices += 1
    return slices


def texts(successor: np.ndarray, count: int, first: int = 0) -> list[list[int]]:
    return [walk(successor, 72, seed) for seed in range(first, first + count)]


def right(
    one: Learner,
    successor: np.ndarray,
    repository: str | None = "/r",
    tokens: Sequence[int] = range(VOCAB),
) -> float:
    """Share of ``tokens`` whose successor the drafter in use knows."""
    corrected = one.promotion.in_use(repository)
    model = one.model
    assert isinstance(model, Table)
    found = 0
    for token in tokens:
        if corrected is None:
            said = model.says(token)
        else:
            said = corrected.chain(Lookahead([token], 0, 0, 0, 1, 0.0, GREEDY))[0][0]
        found += said == successor[token]
    return found / len(tokens)


SUCCESSOR = np.random.default_rng(5).permutation(VOCAB)
OTHER = np.random.default_rng(6).permutation(VOCAB)


def longest_unit(one: Learner, most: int) -> float:
    """Seconds of processor time, over all units until nothing is left."""
    longest = 0.0
    for _ in range(most):
        began = thread_time()
        more = one.idle(0.0)  # exactly one unit
        longest = max(longest, thread_time() - began)
        if not more:
            break
    return longest


class Reading:
    """A target that says what ``successor`` says, unless it is interrupted."""

    rows = 16

    def __init__(self, successor: np.ndarray) -> None:
        self.successor = successor
        self.interrupt_at = -1
        self.calls = self.read_tokens = 0

    def begin(self) -> bool:
        return True

    def read(self, tokens: np.ndarray, position: int) -> tuple[np.ndarray, np.ndarray, None] | None:
        self.calls += 1
        if self.calls == self.interrupt_at:
            return None
        self.read_tokens += len(tokens)
        top = (self.successor[tokens][:, None] + np.arange(TOP)) % VOCAB
        logprobs = np.log(np.array([0.9, 0.05, 0.03, 0.01], np.float32))
        return top.astype(np.int32), np.tile(logprobs, (len(tokens), 1)), None
