"""Confidence: the calibrated probability that the next drafted token is accepted.

Per source a logistic model over bucketed features, hashes of the drafted and the preceding token,
and offsets for the language, the repository and the stream, which start at zero: where little is
known of a repository its language speaks, then the whole. Every weight keeps the information it
was learned from (a diagonal of the Hessian, fading), and a step is the gradient over it: an online
Newton step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import exp

import numpy as np

from atlasd.draft.learned import SourceState

_BUCKETS = 256
_HASHED = 2048
_KEEP = 0.99
"""Of a weight's information, what an update leaves: half is forgotten after 70."""
_FLOOR = 0.002

FRESH_INFORMATION = 4.0
"""What an offset that nothing was learned for counts as known."""

LANGUAGE_CAP, REPOSITORY_CAP = 200.0, 100.0
"""Information at which an offset forgets as fast as it learns: its half-life."""


@dataclass(slots=True)
class _Offset:
    """A learned offset that forgets; its rate adapts to whether its steps go one way (IDBD,
    Sutton 1992)."""

    value: float = 0.0
    information: float = FRESH_INFORMATION
    trend: float = 0.0
    cap: float = 60.0

    def learn(self, error: float, curvature: float) -> None:
        self.information += curvature
        # Errors that keep one sign mean that what is remembered is out of date.
        self.trend += 0.05 * (error - self.trend)
        cap = self.cap / (1.0 + 40.0 * self.trend * self.trend)
        if self.information > cap:
            self.information = cap
        self.value += 0.3 * error / self.information


@dataclass(slots=True)
class Scope:
    """The offsets that apply to one stream, by source."""

    repository: str | None
    language: str | None
    offsets: dict[str, tuple[_Offset, _Offset, _Offset]] = field(default_factory=dict)


class _Source:
    """Weights of one source; ``features`` tables of buckets, then the two token hashes."""

    def __init__(self, features: int) -> None:
        self.features = features
        self.size = features * _BUCKETS + 2 * _HASHED
        self.weights = [0.0] * self.size
        # Tokens are many and seen rarely: what one of them says weighs less at first.
        self.information = [2.0] * (features * _BUCKETS) + [4.0] * (2 * _HASHED)
        self.bias = _Offset(cap=2000.0)


class Confidence:
    """One online-learned map from a drafted token's features to its acceptance probability."""

    def __init__(self) -> None:
        self._sources: dict[str, _Source] = {}
        self._local: dict[tuple[str, str, str], _Offset] = {}
        self._priors: dict[str, tuple[int, list[float]]] = {}
        self.journal: list[tuple[str, float, bool]] | None = None
        """If a list: (source, predicted probability, whether it held), in the order learned."""

    def scope(self, repository: str | None, language: str | None) -> Scope:
        """What applies to a stream of this repository and language."""
        return Scope(repository, language)

    def start(self, name: str, features: int, prior: Sequence[float]) -> None:
        """Weights of a source's first feature to begin with (and after forgetting)."""
        self._priors[name] = features, list(prior)

    def predict(
        self,
        name: str,
        scope: Scope,
        previous: int,
        tokens: Sequence[int],
        features: Sequence[tuple[int, ...]],
        least: float = 0.0,
    ) -> list[float]:
        """Per token the probability that it is accepted given that those before it are; ends
        after the token whose reach falls below ``least``."""
        if not tokens:
            return []
        source = self._source(name, len(features[0]))
        language, repository, stream = self._offsets(name, scope)
        base = source.bias.value + language.value + repository.value + stream.value
        weights = source.weights
        hashed = source.features * _BUCKETS
        reach = 1.0
        result = []
        for token, buckets in zip(tokens, features, strict=False):
            z = base + weights[hashed + token % _HASHED]
            z += weights[hashed + _HASHED + previous % _HASHED]
            at = 0
            for bucket in buckets:
                z += weights[at + bucket]
                at += _BUCKETS
            p = 1.0 / (1.0 + exp(-z)) if z > -30.0 else 0.0
            if p < _FLOOR:
                p = _FLOOR
            result.append(p)
            reach *= p
            if reach < least:
                break
            previous = token
        return result

    def learn(
        self,
        name: str,
        scope: Scope,
        previous: int,
        tokens: Sequence[int],
        features: Sequence[tuple[int, ...]],
        accepted: int,
        decided: bool,
    ) -> None:
        """The first ``accepted`` tokens were the target's; if ``decided``, the next was not."""
        count = min(accepted + decided, len(tokens))
        if count == 0:
            return
        source = self._source(name, len(features[0]))
        offsets = self._offsets(name, scope)
        weights, information = source.weights, source.information
        hashed = source.features * _BUCKETS
        for at in range(count):
            token = tokens[at]
            indices = [hashed + token % _HASHED, hashed + _HASHED + previous % _HASHED]
            table = 0
            for bucket in features[at]:
                indices.append(table + bucket)
                table += _BUCKETS
            z = source.bias.value
            for offset in offsets:
                z += offset.value
            for index in indices:
                z += weights[index]
            p = 1.0 / (1.0 + exp(-z)) if z > -30.0 else 0.0
            error = (1.0 if at < accepted else 0.0) - p
            previous = token
            if self.journal is not None:
                self.journal.append((name, p, at < accepted))
            if -0.003 < error < 0.003:
                continue
            curvature = p * (1.0 - p) + 0.01
            for index in indices:
                info = _KEEP * information[index] + curvature
                information[index] = info
                weights[index] += 0.5 * error / info
            source.bias.learn(error, curvature)
            for offset in offsets:
                offset.learn(error, curvature)

    def _source(self, name: str, features: int) -> _Source:
        source = self._sources.get(name)
        if source is None or source.features != features:
            source = self._sources[name] = _Source(features)
            expected, prior = self._priors.get(name, (features, []))
            if expected == features:
                source.weights[: len(prior)] = prior
        return source

    def _offsets(self, name: str, scope: Scope) -> tuple[_Offset, _Offset, _Offset]:
        offsets = scope.offsets.get(name)
        if offsets is None:
            offsets = scope.offsets[name] = (
                self._kept(name, "language", scope.language, LANGUAGE_CAP),
                self._kept(name, "repository", scope.repository, REPOSITORY_CAP),
                _Offset(cap=20.0),
            )
        return offsets

    def _kept(self, name: str, kind: str, value: str | None, cap: float) -> _Offset:
        key = (name, kind, value or "")
        offset = self._local.get(key)
        if offset is None:
            offset = self._local[key] = _Offset(cap=cap)
        return offset

    def forget(self, repository: str | None) -> None:
        """Drop what was learned from a repository (None: everything)."""
        if repository is None:
            self._sources.clear()
            self._local.clear()
            return
        for key in [k for k in self._local if k[1:] == ("repository", repository)]:
            del self._local[key]

    def states(self) -> dict[str, SourceState]:
        """What was learned, by source."""
        return {
            name: SourceState(
                source.features,
                np.array(source.weights),
                np.array(source.information),
                [
                    source.bias.value,
                    source.bias.information,
                    source.bias.trend,
                    source.bias.cap,
                ],
                {
                    (kind, value): (offset.value, offset.information)
                    for (owner, kind, value), offset in self._local.items()
                    if owner == name and offset.information != FRESH_INFORMATION
                },
            )
            for name, source in self._sources.items()
        }

    def load(self, name: str, state: SourceState) -> None:
        """Take over a source's state."""
        source = _Source(state.features)
        if len(state.weights) != source.size or len(state.information) != source.size:
            return
        source.weights = state.weights.tolist()
        source.information = state.information.tolist()
        source.bias = _Offset(*state.bias)
        self._sources[name] = source
        for (kind, value), learned in state.offsets.items():
            self.load_offset(name, kind, value, learned)

    def load_offset(self, name: str, kind: str, value: str, learned: tuple[float, float]) -> None:
        """Take over the offset of a language or a repository."""
        cap = LANGUAGE_CAP if kind == "language" else REPOSITORY_CAP
        self._local[name, kind, value] = _Offset(learned[0], learned[1], cap=cap)
