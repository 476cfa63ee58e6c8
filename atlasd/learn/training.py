"""One small step of the adapter's training, in numpy: forward, loss, gradient, Adam.

The static drafter is frozen and its states are computed anew by whoever calls, so nothing here can
go stale. Codes and bias are touched only where a window's tokens are (a sparse Adam).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from atlasd.draft.drafter import Float32, Int32
from atlasd.learn.adapter import Adapter
from atlasd.learn.loss import Wanted, loss_and_gradient

RATE, CODE_RATE = 0.00075, 0.00125
DECAY = 0.05
"""Share of a weight that a unit of learning rate pulls back towards the static drafter."""

_FIRST, _SECOND, _SMALL = 0.9, 0.99, 1e-8


@dataclass(frozen=True)
class Window:
    """Rows that follow each other in one text, with what the target chose at each."""

    states: Float32
    """The static drafter's, [n, hidden]."""
    last: Int32
    """The token each row read, [n]."""
    before: Int32
    """The one before it, [n]."""
    top: Int32
    """The target's top choices, best first, [n, k]; -1: not known."""
    logprobs: Float32
    """Their log-probabilities, [n, k]; not a number where they are not known."""


class Places:
    """Where each token stands in a head; -1 for those that are not in it."""

    def __init__(self, head: Int32, vocab_size: int) -> None:
        self.table = np.full(vocab_size + 1, -1, np.int32)
        self.table[head] = np.arange(len(head), dtype=np.int32)

    def wanted(self, window: Window) -> Wanted:
        """A window's target in places. Where no probabilities are known, what was chosen counts
        as certain."""
        top = self.table[window.top]
        known = np.isfinite(window.logprobs[:, 0])
        probability = np.exp(np.nan_to_num(window.logprobs, nan=-np.inf)).astype(np.float32)
        probability[~known] = 0.0
        probability[~known, 0] = 1.0
        return Wanted(top[:, 0], top, probability)


class _Moments:
    """Adam's two running means of one array (Kingma and Ba 2015)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.first = np.zeros(shape, np.float32)
        self.second = np.zeros(shape, np.float32)
        self.steps: npt.NDArray[np.int32] = np.zeros(shape[:1], np.int32)

    def step(self, rows: npt.NDArray[np.intp] | slice, gradient: Float32) -> Float32:
        """The update direction of these rows; rows that were not touched do not age."""
        self.steps[rows] += 1
        self.first[rows] = first = _FIRST * self.first[rows] + (1 - _FIRST) * gradient
        self.second[rows] = second = _SECOND * self.second[rows] + (1 - _SECOND) * gradient**2
        age = self.steps[rows].astype(np.float32).reshape(-1, *[1] * (gradient.ndim - 1))
        size = np.sqrt(second / (1 - _SECOND**age)) + _SMALL
        direction: Float32 = (first / (1 - _FIRST**age) / size).astype(np.float32)
        return direction


class Trainer:
    """Trains one adapter in place. ``embedding`` gives the drafter's rows of token ids [n] as
    [n, hidden]."""

    def __init__(self, adapter: Adapter, embedding: Callable[[Int32], Float32]) -> None:
        self.adapter = adapter
        self.steps = 0
        self._moments = {
            name: _Moments(getattr(adapter, name).shape)
            for name in ("down", "up", "last", "before", "bias")
        }
        self._embedding = embedding
        self.use_head(adapter.head)

    @property
    def nbytes(self) -> int:
        """Bytes of the adapter, its moments and its head's rows."""
        moments = sum(one.first.nbytes + one.second.nbytes for one in self._moments.values())
        return self.adapter.nbytes + moments + self._rows.nbytes

    def use_head(self, head: Int32) -> None:
        """Draft these tokens from now on; what was learned of them stays."""
        self.adapter.head = head.astype(np.int32)
        self.places = Places(self.adapter.head, len(self.adapter.bias))
        self._rows = np.ascontiguousarray(self._embedding(self.adapter.head), np.float32)

    def step(self, window: Window) -> float:
        """Train on a window; returns its loss before the step."""
        adapter = self.adapter
        codes = len(adapter.last)
        z = adapter.bottleneck(window.states, window.last, window.before)
        logits = (window.states + z @ adapter.up) @ self._rows.T + adapter.bias[adapter.head]
        loss, gradient = loss_and_gradient(logits, self.places.wanted(window))
        corrected: Float32 = gradient @ self._rows
        bottleneck: Float32 = corrected @ adapter.up.T
        up: Float32 = z.T @ corrected
        down: Float32 = window.states.T @ bottleneck
        self.steps += 1
        self._update("up", slice(None), up, RATE)
        self._update("down", slice(None), down, RATE)
        self._sparse("last", window.last % codes, bottleneck)
        self._sparse("before", window.before % codes, bottleneck)
        self._update("bias", adapter.head.astype(np.intp), gradient.sum(axis=0), RATE)
        return loss

    def _sparse(self, name: str, codes: Int32, gradient: Float32) -> None:
        rows, inverse = np.unique(codes, return_inverse=True)
        summed = np.zeros((len(rows), gradient.shape[1]), np.float32)
        np.add.at(summed, inverse, gradient)
        self._update(name, rows.astype(np.intp), summed, CODE_RATE)

    def _update(
        self, name: str, rows: npt.NDArray[np.intp] | slice, gradient: Float32, rate: float
    ) -> None:
        weights = getattr(self.adapter, name)
        direction = self._moments[name].step(rows, gradient)
        decay = 0.0 if name == "down" else DECAY
        weights[rows] -= rate * (direction + decay * weights[rows])
