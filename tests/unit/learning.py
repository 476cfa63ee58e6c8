"""A static drafter small enough to follow by hand, and helpers for tests of ``atlasd.learn``."""

from __future__ import annotations

import numpy as np
from atlasd_kernels.cpu.correction import LowRank

from atlasd.draft.lookahead import Chain, Chains, Lookahead

VOCAB, HIDDEN = 48, 24


class Table:
    """A drafter whose state is a random vector per token read: what it drafts depends on the last
    token alone, and an adapter can teach it any other successor."""

    identity = "table"
    hidden = HIDDEN
    vocab_size = VOCAB
    slot_tokens = 512
    slots = 4
    carries = False

    def __init__(self, head: np.ndarray | None = None, seed: int = 0) -> None:
        draw = np.random.default_rng(seed)
        self.embedding = draw.standard_normal((VOCAB, HIDDEN)).astype(np.float32)
        self.state = draw.standard_normal((VOCAB, HIDDEN)).astype(np.float32)
        self.head = head
        self.read_tokens = 0

    def states(
        self, tokens: np.ndarray, position: int, chose: np.ndarray | None = None
    ) -> np.ndarray:
        self.read_tokens += len(tokens)
        return self.state[tokens]

    def rows(self, ids: np.ndarray) -> np.ndarray:
        return self.embedding[ids]

    def corrected(self, weights: LowRank) -> Chains:
        return TableCorrected(self, weights)

    def read(self, tokens: np.ndarray, slot: int, position: int) -> None:
        pass

    def chain(self, ask: Lookahead) -> Chain:
        tokens, last = [], ask.tokens[-1]
        for _ in range(ask.limit):
            last = self.says(last)
            tokens.append(last)
        return tokens, [0.9] * ask.limit

    def says(self, token: int) -> int:
        head = np.arange(VOCAB) if self.head is None else self.head
        return int(head[(self.state[token] @ self.embedding[head].T).argmax()])

    def memory_bytes(self) -> dict[str, int]:
        return {"weights": self.embedding.nbytes}


class TableCorrected:
    def __init__(self, table: Table, weights: LowRank) -> None:
        self.table, self.weights = table, weights

    def chain(self, ask: Lookahead) -> Chain:
        w = self.weights
        tokens: list[int] = []
        last, before = ask.tokens[-1], ask.before
        for _ in range(ask.limit):
            state = self.table.state[last]
            z = state @ w.down + w.last[last % len(w.last)] + w.before[before % len(w.last)]
            logits = (state + z @ w.up) @ self.table.embedding[w.head].T + w.bias
            before, last = last, int(w.head[logits.argmax()])
            tokens.append(last)
        return tokens, [0.9] * ask.limit


class FlatCosts:
    """A step of one row takes a millisecond, each further row a twentieth."""

    def ms(self, rows: int, kv_tokens: int) -> float:
        return 1.0 + 0.05 * (rows - 1)

    def bucket(self, rows: int) -> int:
        return rows


def walk(successor: np.ndarray, length: int, seed: int, noise: float = 0.05) -> list[int]:
    """A text in which ``successor[token]`` follows each token, but for a little noise."""
    draw = np.random.default_rng(seed)
    text = [int(draw.integers(VOCAB))]
    while len(text) < length:
        strays = draw.random() < noise
        text.append(int(draw.integers(VOCAB)) if strays else int(successor[text[-1]]))
    return text
