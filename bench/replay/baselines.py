"""Published drafting rules, written from their descriptions, to be measured on the same text."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import Protocol

import numpy as np

from atlasd.draft.drafter import Int32, StreamView


class Rule(Protocol):
    """A baseline: what it drafts is verified as it is."""

    name: str

    def add(self, name: str, tokens: Int32) -> None: ...
    def begin(self, stream: StreamView) -> None: ...
    def propose(self, stream: StreamView, limit: int) -> list[int]: ...
    def observe(
        self, stream: StreamView, tokens: list[int], accepted: int, drafted: int
    ) -> None: ...


class Plain:
    """No draft at all; what the other rules do not say is as here."""

    name = "plain"

    def add(self, name: str, tokens: Int32) -> None:
        """A file of the repository."""

    def begin(self, stream: StreamView) -> None:
        """A request starts."""

    def propose(self, stream: StreamView, limit: int) -> list[int]:
        """At most ``limit`` tokens to follow the stream."""
        return []

    def observe(self, stream: StreamView, tokens: list[int], accepted: int, drafted: int) -> None:
        """A step is over."""


class PromptLookup(Plain):
    """transformers: the stream's first place of its last 3 (2, 1) tokens, 10 tokens from it."""

    name = "prompt lookup"

    def propose(self, stream: StreamView, limit: int) -> list[int]:
        tokens = np.array(stream.tokens, np.int32)
        for size in (3, 2, 1):
            if len(tokens) <= size:
                continue
            hit = np.ones(len(tokens) - size, bool)
            for k in range(size):
                hit &= tokens[k : len(tokens) - size + k] == tokens[len(tokens) - size + k]
            at = np.flatnonzero(hit)
            if len(at):
                start = int(at[0]) + size
                return stream.tokens[start : start + min(10, limit)]
        return []


class NgramMod(Plain):
    """llama.cpp ngram-mod: hash of the last n tokens -> next token, one pool for all streams, which
    is reset after five drafts under a quarter; drafts of at least ``least`` tokens."""

    def __init__(self, n: int = 24, least: int = 48, most: int = 64) -> None:
        self.name = f"ngram-mod n={n}"
        self.n, self.least, self.most = n, least, most
        self.pool: dict[tuple[int, ...], int] = {}
        self.poor = 0

    def add(self, name: str, tokens: Int32) -> None:
        self._feed(tokens.tolist())

    def begin(self, stream: StreamView) -> None:
        self._feed(stream.tokens)

    def _feed(self, tokens: list[int]) -> None:
        for at in range(self.n, len(tokens)):
            self.pool[tuple(tokens[at - self.n : at])] = tokens[at]

    def propose(self, stream: StreamView, limit: int) -> list[int]:
        text = stream.tokens[-self.n :]
        if len(text) < self.n:
            return []
        draft: list[int] = []
        while len(draft) < min(self.most, limit):
            token = self.pool.get(tuple(text[-self.n :]))
            if token is None:
                break
            text.append(token)
            draft.append(token)
        return draft if len(draft) >= min(self.least, limit) else []

    def observe(self, stream: StreamView, tokens: list[int], accepted: int, drafted: int) -> None:
        self._feed(stream.tokens[-self.n - len(tokens) :])
        if drafted:
            self.poor = self.poor + 1 if accepted < drafted / 4 else 0
            if self.poor >= 5:
                self.pool.clear()
                self.poor = 0


class LastOccurrence(Plain):
    """The last place of the last six (then three) tokens anywhere; a fixed number from it."""

    def __init__(self, count: int) -> None:
        self.name = f"last occurrence, {count}"
        self.count = count
        self.tables: dict[int, dict[tuple[int, ...], tuple[list[int], int]]] = {6: {}, 3: {}}

    def add(self, name: str, tokens: Int32) -> None:
        self._feed(tokens.tolist(), 0)

    def _feed(self, text: list[int], start: int) -> None:
        for n, table in self.tables.items():
            for at in range(max(n, start), len(text)):
                table[tuple(text[at - n : at])] = (text, at)

    def begin(self, stream: StreamView) -> None:
        self._feed(stream.tokens, 0)

    def propose(self, stream: StreamView, limit: int) -> list[int]:
        for n, table in self.tables.items():
            hit = table.get(tuple(stream.tokens[-n:]))
            if hit:
                return hit[0][hit[1] : hit[1] + min(self.count, limit)]
        return []

    def observe(self, stream: StreamView, tokens: list[int], accepted: int, drafted: int) -> None:
        self._feed(stream.tokens, len(stream.tokens) - len(tokens))


class SuffixTree(Plain):
    """SuffixDecoding as in Arctic Inference: over all suffixes of the context, the greedy path by
    counts, at most factor x match tokens, node probability at least 0.1; the best score, the sum
    of node probabilities, wins. One tree over the stream, one over all earlier text and files.

    A set of positions stands for a tree node: counting their next tokens gives its children.
    """

    def __init__(self, factor: float = 1.0, least: float = 0.1, repository: bool = True) -> None:
        self.name = f"suffix tree (Arctic) x{factor:g}" + ("" if repository else ", outputs only")
        self.factor, self.least, self.repository = factor, least, repository
        self.files: dict[str, list[int]] = {}
        self.text = np.empty(0, np.int32)
        self.by_token: dict[int, Int32] = {}
        self.outputs: list[list[int]] = []
        self.score = 0.0
        """Of the last draft: its expected accepted tokens."""
        self.match = 0

    def add(self, name: str, tokens: Int32) -> None:
        if self.repository:
            self.files[name] = tokens.tolist()

    def begin(self, stream: StreamView) -> None:
        self.outputs.append([])
        parts: list[int] = []
        for text in [*self.files.values(), *self.outputs[-500:]]:
            parts += [*text, -1]
        self.text = np.array(parts, np.int32)
        self.by_token = {}
        order = np.argsort(self.text, kind="stable").astype(np.int32)
        if not len(order):
            return
        values = self.text[order]
        starts = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])
        self.by_token = {
            int(values[a]): order[a:b]
            for a, b in zip(starts, [*starts[1:], len(values)], strict=True)
        }

    def propose(self, stream: StreamView, limit: int) -> list[int]:
        context = stream.tokens[-64:]
        local = np.array(stream.tokens, np.int32)
        best: tuple[float, list[int]] = (0.0, [])
        empty = np.empty(0, np.int32)
        for text, at in (
            (local, np.flatnonzero(local[:-1] == context[-1])),
            (self.text, self.by_token.get(context[-1], empty)),
        ):
            places = at[at + 1 < len(text)]
            lengths = np.zeros(len(places), np.int32)
            alive = np.arange(len(places))
            for back, token in enumerate(reversed(context)):
                position = places[alive] - back
                alive = alive[(position >= 0) & (text[position] == token)]
                if not len(alive):
                    break
                lengths[alive] = back + 1
            for length in np.unique(lengths):
                draft, score = self._path(text, places[lengths >= length] + 1, int(length), limit)
                if score >= best[0]:
                    best = (score, draft)
                    self.match = int(length)
        self.score = best[0]
        return best[1]

    def _path(self, text: Int32, at: Int32, length: int, limit: int) -> tuple[list[int], float]:
        draft: list[int] = []
        score, probability = 0.0, 1.0
        most = min(limit, int(length * self.factor + 1e-6))
        while len(draft) < most:
            at = at[at < len(text)]
            if not len(at):
                break
            if len(at) == 1:
                token, share = int(text[at[0]]), 1.0
            else:
                values, counts = np.unique(text[at], return_counts=True)
                top = int(counts.argmax())
                token, share = int(values[top]), float(counts[top] / counts.sum())
            probability *= share
            if probability < self.least or token == -1:
                break
            score += probability
            draft.append(token)
            at = at[text[at] == token] + 1
        return draft, score

    def observe(self, stream: StreamView, tokens: list[int], accepted: int, drafted: int) -> None:
        self.outputs[-1] = stream.tokens[max(0, stream.prompt_length - 64) :]


class TokenRecycling(Plain):
    """The table of the last seen successors of each token, followed by its first column."""

    def __init__(self, depth: int = 6) -> None:
        self.name = "token recycling (chain)"
        self.depth = depth
        self.table: dict[int, int] = defaultdict(lambda: -1)

    def begin(self, stream: StreamView) -> None:
        for one, other in pairwise(stream.tokens):
            self.table[one] = other

    def propose(self, stream: StreamView, limit: int) -> list[int]:
        draft: list[int] = []
        token = stream.tokens[-1]
        while len(draft) < min(self.depth, limit):
            token = self.table[token]
            if token < 0:
                break
            draft.append(token)
        return draft

    def observe(self, stream: StreamView, tokens: list[int], accepted: int, drafted: int) -> None:
        text = stream.tokens[-len(tokens) - 1 :]
        for one, other in pairwise(text):
            self.table[one] = other
