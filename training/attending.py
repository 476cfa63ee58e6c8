"""What heads are to look at, taught directly, so that repeating can be noticed a layer earlier.

Two of the first layer: at the token before, and at the one before that. One of the second: at
what followed the present tokens earlier ("induction"), which by itself the model came to do in its
third. One of the third: at the token before again, where that has left what it expected. One of
the fourth, where text repeats itself: at the last token that did not, or at the first of all once
that has gone on for long. That this is what makes a model stop has not been shown
(training/README.md).
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from training import repeats
from training.model import Decoder, Layer, rope_tables, rotate

BEFORE, SECOND, AGAIN, BREAK = range(4)
# Layers and where they are to look.
ASKED = ((0, BEFORE), (0, SECOND), (1, AGAIN), (2, BEFORE), (3, BREAK))
SOME, MANY = 4, 14  # repeated tokens from which on a head is asked; of which it need not know more
CONTEXTS = (4, 3, 2, 1)  # tokens that have to be the same, the longest first


def followed(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """tokens [n] -> [n, n]: the places after earlier tokens that are the same as those up to it, as
    many as ever were; nowhere if that one token is new."""
    count = len(tokens)
    found, open_rows = np.zeros((count, count), bool), np.ones(count, bool)
    key, keys = tokens.astype(np.int64), {}
    for size in sorted(CONTEXTS):
        if size > 1:
            before = np.concatenate(([-1], key[:-1]))
            _, key = np.unique(before * (1 << 20) + tokens, return_inverse=True)
        keys[size] = key.copy()
    for size in CONTEXTS:
        rows = np.flatnonzero(open_rows)
        same = keys[size][rows, None] == keys[size][None, :-1]
        same &= np.arange(count - 1)[None] < rows[:, None]
        hit = same.any(axis=1)
        found[rows[hit], 1:] = same[hit]
        open_rows[rows[hit]] = False
    return found


def broken(tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """tokens [n] -> [n, n]: the last token before those that repeat, the first of all if they are
    `MANY`; nowhere if they are not even `SOME`."""
    run, _ = repeats.measures(tokens[None])
    rows = np.flatnonzero(run[0] >= SOME)
    found = np.zeros((len(tokens), len(tokens)), bool)
    found[rows, np.where(run[0, rows] < MANY, rows - run[0, rows], 0)] = True
    return found


def wanted_places(row: Tensor, kind: int) -> Tensor:
    """row [n], one document -> bool [n, n]."""
    if kind == AGAIN:
        return torch.from_numpy(followed(row.numpy()))
    if kind == BREAK:
        return torch.from_numpy(broken(row.numpy()))
    back = 1 + kind
    return torch.ones(len(row), len(row), dtype=torch.bool).tril(-back).triu(-back)


def head_scores(layer: Layer, x: Tensor, head: int, documents: list[int]) -> list[Tensor]:
    """x [1, n, hidden] -> log shares [length, length] of one head's attention, by document."""
    shape, size = layer.shape, layer.shape.head_dim
    kept, q_rows = layer.norm1(x), shape.heads * size
    group = shape.heads // shape.kv_heads
    at = q_rows + head // group * size
    queries, keys = slice(head * size, (head + 1) * size), slice(at, at + size)
    weight, bias = layer.qkv.weight, layer.qkv.bias
    cos, sin = rope_tables(shape, x.shape[1])
    projected = (F.linear(kept, weight[r], bias[r]) for r in (queries, keys))
    q, k = (rotate(part[:, :, None], cos, sin)[0, :, 0] for part in projected)
    found = []
    for one, other in zip(q.split(documents), k.split(documents), strict=True):
        scores = one @ other.T * size**-0.5
        later = torch.ones(len(one), len(one), dtype=torch.bool).triu(1)
        found.append(F.log_softmax(scores.masked_fill(later, -torch.inf), dim=-1))
    return found


def attention_loss(
    layer: Layer, x: Tensor, head: int, row: Tensor, kind: int, documents: list[int]
) -> tuple[Tensor, int]:
    """Nats summed over the tokens of row [n] that have a place to look at, and their number."""
    total, count = x.new_zeros(()), 0
    for shares, part in zip(
        head_scores(layer, x, head, documents), row.split(documents), strict=True
    ):
        places = wanted_places(part, kind)
        rows = places.any(dim=1)
        found = shares[rows].masked_fill(~places[rows], -torch.inf).logsumexp(dim=-1)
        total, count = total - found.sum(), count + len(found)
    return total, count


@torch.no_grad()
def nearest_heads(model: Decoder, rows: Tensor) -> list[int]:
    """For each of those asked the head that already looks there most."""
    best: list[int] = []
    for at, (number, kind) in enumerate(ASKED):
        sums = torch.zeros(model.shape.heads)
        for row in rows:
            x = model.embed(row[None])
            cos, sin = rope_tables(model.shape, len(row))
            for layer in model.layers[:number]:
                x = layer(x, cos, sin, [len(row)])
            for head in range(model.shape.heads):
                layer = model.layers[number]
                assert isinstance(layer, Layer)
                sums[head] += attention_loss(layer, x, head, row, kind, [len(row)])[0]
        for (other, _), head in zip(ASKED[:at], best, strict=True):
            if other == number:
                sums[head] = torch.inf
        best.append(int(sums.argmin()))
    return best
