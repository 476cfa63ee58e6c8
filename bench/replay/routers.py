"""Published rules that choose a length or between two drafters, to be measured on the same text."""

from __future__ import annotations

from itertools import pairwise
from math import ceil

import numpy as np
import numpy.typing as npt

from atlasd.draft.drafter import StreamView
from bench.replay.baselines import LastOccurrence, Plain, SuffixTree
from bench.replay.static import Priced, priced_neural

Float = npt.NDArray[np.float64]


class MovingAverage(LastOccurrence):
    """SGLang: the lookahead follows a moving average of accepted tokens, one more than it."""

    def __init__(self, weight: float = 0.2) -> None:
        super().__init__(8)
        self.name = "last occurrence, moving average (SGLang)"
        self.weight = weight
        self.average = 4.0

    def observe(self, stream: StreamView, tokens: list[int], accepted: int, drafted: int) -> None:
        super().observe(stream, tokens, accepted, drafted)
        if drafted:
            self.average += self.weight * (accepted - self.average)
            self.count = max(1, min(63, ceil(self.average) + 1))


class NgramMapK(Plain):
    """llama.cpp's ngram-map-k: the stream's last place of its last ``n`` tokens; of what follows at
    most ``most`` tokens, and after a rejection as many as were accepted."""

    def __init__(self, n: int = 12, most: int = 48) -> None:
        self.name = f"ngram-map-k n={n}"
        self.n, self.most = n, most
        self.length = most
        self.table: dict[tuple[int, ...], int] = {}

    def begin(self, stream: StreamView) -> None:
        self.table = {}
        self.length = self.most
        self._feed(stream.tokens, self.n)

    def _feed(self, text: list[int], begin: int) -> None:
        for at in range(max(self.n, begin), len(text)):
            self.table[tuple(text[at - self.n : at])] = at

    def propose(self, stream: StreamView, limit: int) -> list[int]:
        at = self.table.get(tuple(stream.tokens[-self.n :]))
        return [] if at is None else stream.tokens[at : at + min(self.length, limit)]

    def observe(self, stream: StreamView, tokens: list[int], accepted: int, drafted: int) -> None:
        self._feed(stream.tokens, len(stream.tokens) - len(tokens))
        if drafted:
            self.length = self.most if accepted == drafted else max(1, accepted)


class StaticAlone(Plain):
    """The static drafter with a fixed lookahead."""

    def __init__(self, model: Priced, count: int) -> None:
        self.name = f"static, {count}"
        self.count = count
        self._neural = priced_neural(model)
        self._neural.least = 0.0
        self._stream: StreamView | None = None

    def begin(self, stream: StreamView) -> None:
        if self._stream is not None:
            self._neural.end(self._stream)
        self._stream = stream
        self._neural.begin(stream)

    def propose(self, stream: StreamView, limit: int) -> list[int]:
        return self._neural.propose(stream, [], min(self.count, limit)).tokens


class ArcticHybrid(SuffixTree):
    """Arctic Inference: the suffix tree's draft if its score reaches what the static drafter
    drafts, else the static drafter's."""

    def __init__(self, model: Priced, count: int = 5, factor: float = 1.0) -> None:
        super().__init__(factor)
        self.name = f"Arctic hybrid, suffix x{factor:g} or static {count}"
        self.static = StaticAlone(model, count)

    def begin(self, stream: StreamView) -> None:
        super().begin(stream)
        self.static.begin(stream)

    def propose(self, stream: StreamView, limit: int) -> list[int]:
        draft = super().propose(stream, limit)
        if self.score >= self.static.count:
            return draft
        return self.static.propose(stream, limit)


class HvdRouter(SuffixTree):
    """HVD (2606.01019): a network of two layers of 256 foresees how much of a cached draft will be
    accepted; over 6 it is used, else the static drafter's. Trained as the trace is replayed, on
    every cached draft, used or not."""

    def __init__(self, model: Priced, count: int = 5, threshold: float = 6.0) -> None:
        super().__init__(2.0)
        self.name = "HVD router, suffix tree or static"
        self.static = StaticAlone(model, count)
        self.threshold = threshold
        draw = np.random.default_rng(1)
        sizes = (6, 256, 256, 1)
        self.weights = [draw.normal(0, np.sqrt(2 / a), (a, b)) for a, b in pairwise(sizes)]
        self.biases = [np.zeros(size) for size in sizes[1:]]
        self.cached: list[int] = []
        self.activations: list[Float] = []
        self.recent = 0.0

    def begin(self, stream: StreamView) -> None:
        super().begin(stream)
        self.static.begin(stream)

    def propose(self, stream: StreamView, limit: int) -> list[int]:
        self.cached = super().propose(stream, limit)
        count = len(self.cached)
        features = [self.score, count, self.match, self.recent, float(count > 0)]
        features.append(self.score / max(1, count))
        if self._foresee(np.array(features) / np.array([8, 16, 16, 8, 1, 1])) > self.threshold:
            return self.cached
        return self.static.propose(stream, limit)

    def _foresee(self, features: Float) -> float:
        layer = features
        self.activations = [layer]
        for weights, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            layer = np.maximum(layer @ weights + bias, 0.0)
            self.activations.append(layer)
        return float((layer @ self.weights[-1] + self.biases[-1])[0])

    def observe(self, stream: StreamView, tokens: list[int], accepted: int, drafted: int) -> None:
        super().observe(stream, tokens, accepted, drafted)
        right = 0
        while right < min(len(self.cached), len(tokens)) and self.cached[right] == tokens[right]:
            right += 1
        self.recent += 0.2 * (right - self.recent)
        if self.cached and self.activations:
            self._learn(float(right))

    def _learn(self, target: float) -> None:
        seen = (self.activations[-1] @ self.weights[-1] + self.biases[-1])[0]
        gradient = np.array([np.clip(seen - target, -4.0, 4.0)])
        for at in range(len(self.weights) - 1, -1, -1):
            before = self.activations[at]
            passed = (gradient @ self.weights[at].T) * (before > 0)
            self.weights[at] -= 0.002 * np.outer(before, gradient)
            self.biases[at] -= 0.002 * gradient
            gradient = passed
