"""What the adapter is trained for: the target's distribution, and accepted tokens of its chains.

Row i of a window is accepted with probability a_i, the drafter's own probability of what the
target chose there. A chain that starts at row s yields sum over k >= s of a_s a_(s+1) ... a_k; the
loss is minus its mean over all starts, later rows discounted because lookahead is limited. Its
gradient with respect to a_i is the discounted probability of reaching row i times what is expected
from there on: a row that follows certain ones counts more than one that is never reached.

Where a_i is nearly zero the first part has no gradient; the KL to the target's distribution over
the head's tokens does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from atlasd.draft.drafter import Float32, Int32

DISCOUNT = 0.85

KL = 5.0
"""Weight of the KL. Accepted tokens alone sharpen what is nearly certain anyway, and fit the rows
that are trained on: with a weight of 0.3 the bundled drafter got worse on Rust that was set apart,
with this one it gets better."""


@dataclass(frozen=True)
class Wanted:
    """What the target said at n rows that follow each other: its choices as places in the head."""

    choice: Int32
    """Place of the first choice in the head, [n]; -1 where it cannot be drafted."""
    top: Int32
    """Places of the top choices, [n, k]; -1 where they cannot be drafted."""
    probability: Float32
    """Their probabilities, [n, k]; 0 where they are not known."""


def reach_and_worth(acceptance: Float32) -> tuple[Float32, Float32]:
    """Per row the discounted count of chains that reach it, and the discounted tokens expected of
    a chain that has arrived there, itself included; both [n]."""
    n = len(acceptance)
    a = acceptance.tolist()
    reach, worth = [1.0] * n, [0.0] * (n + 1)
    for i in range(1, n):
        reach[i] = 1.0 + DISCOUNT * a[i - 1] * reach[i - 1]
    for i in range(n - 1, -1, -1):
        worth[i] = a[i] * (1.0 + DISCOUNT * worth[i + 1])
    return np.array(reach, np.float32), np.array(worth, np.float32)


def loss_and_gradient(logits: Float32, wanted: Wanted) -> tuple[float, Float32]:
    """The loss of a window and its gradient with respect to the logits [n, head].

    ``logits`` is overwritten."""
    n = len(logits)
    logits -= logits.max(axis=1, keepdims=True)
    q = np.exp(logits, out=logits)
    q /= q.sum(axis=1, keepdims=True)
    rows = np.arange(n)
    known = wanted.choice >= 0
    chosen = np.where(known, wanted.choice, 0)
    acceptance = np.where(known, q[rows, chosen], 0.0).astype(np.float32)
    reach, worth = reach_and_worth(acceptance)
    behind = 1.0 + DISCOUNT * worth[1:]
    # d loss / d a_i times a_i, which is what the softmax wants
    pull = reach * behind * acceptance / n

    there = wanted.top >= 0
    probability = np.where(there, wanted.probability, 0.0).astype(np.float32)
    share = probability.sum(axis=1)
    place = np.where(there, wanted.top, 0)
    q_top = np.maximum(q[rows[:, None], place], 1e-30)
    safe = np.maximum(probability, 1e-30)
    divergence = float(
        (probability * (np.log(safe / np.maximum(share, 1e-30)[:, None]) - np.log(q_top))).sum()
    )
    loss = -float(worth[:n].mean()) + KL * divergence / n

    gradient = q
    gradient *= (pull + KL * share / n)[:, None]
    np.subtract.at(gradient, (rows, chosen), np.where(known, pull, 0.0))
    np.subtract.at(
        gradient, (np.repeat(rows, place.shape[1]), place.ravel()), (KL / n * probability).ravel()
    )
    return loss, gradient
