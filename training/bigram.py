"""A start better than random: the first layer as a bigram model, fitted to counts in minutes.

Which token follows which takes a transformer its first million tokens to find out. Counted over all
packed rows it fits a sparse table of [vocabulary, vocabulary], and the embedding, the first layer's
MLP and the final norm learn it from there, many tokens of text per row of the table. Four heads of
the first layer begin by looking one to four tokens back, through the biases of q and k alone.

    python -m training.bigram --size 7m --data training/work/packed/a --run main --steps 300
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.model import SIZES, Decoder, Layer, Shape
from training.rates import Rates
from training.train import Rows, Run, optimisers

ROWS = 1024


def count_pairs(rows: Rows, vocabulary: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sparse next-token counts: row starts [vocabulary + 1], followers and counts [pairs]."""
    pairs = np.zeros(0, dtype=np.int64)
    counts = np.zeros(0, dtype=np.int64)
    for start in range(0, len(rows.data), 4096):
        block = rows.data[start : start + 4096].astype(np.int64)
        new = (block[:, :-1] * vocabulary + block[:, 1:]).reshape(-1)
        new, found = np.unique(new, return_counts=True)
        merged = np.concatenate((pairs, new))
        pairs, where = np.unique(merged, return_inverse=True)
        counts = np.bincount(where, weights=np.concatenate((counts, found))).astype(np.int64)
    starts = np.searchsorted(pairs, np.arange(vocabulary + 1) * vocabulary)
    followers = pairs % vocabulary
    return torch.from_numpy(starts), torch.from_numpy(followers), torch.from_numpy(counts)


def states_of(model: Decoder, tokens: Tensor) -> Tensor:
    """Final states [rows, hidden] if only the first layer's MLP did anything."""
    layer = model.layers[0]
    assert isinstance(layer, Layer)
    x = model.embed(tokens)
    gate, up = layer.gate_up(layer.norm2(x)).chunk(2, dim=-1)
    states: Tensor = model.norm(x + layer.down(F.silu(gate) * up))
    return states


def look_back(layer: Layer, shape: Shape, strength: float = 4.0, pairs: int = 8) -> None:
    """Bias head h to the token h + 1 back, while heads last; the last head stays free.

    Rotary embedding makes a constant q against a constant k a function of their distance alone:
    the sum of cos(angle x (distance - wanted)) over the fastest `pairs`, highest where wanted.
    """
    half = shape.head_dim // 2
    angles = shape.rope_theta ** -(torch.arange(half) / half)
    amplitude = torch.where(torch.arange(half) < pairs, strength, 0.0)
    q, k, _ = layer.qkv.bias.data.split(layer.splits)
    for head in k.view(-1, shape.head_dim):
        head[:half], head[half:] = amplitude, 0.0
    for back, head in enumerate(q.view(-1, shape.head_dim)[:-1], start=1):
        # q is rotated by +position: turning it back by `back` positions meets the k of that token.
        head[:half], head[half:] = (
            amplitude * (angles * -back).cos(),
            amplitude * (angles * -back).sin(),
        )


def fit(model: Decoder, table: tuple[Tensor, Tensor, Tensor], steps: int, batch: int) -> None:
    starts, followers, counts = table
    vocabulary = model.shape.vocabulary
    seen = torch.zeros(vocabulary)
    seen.index_add_(0, torch.repeat_interleave(starts.diff()), counts.float())
    chance = (seen / seen.sum()) ** 0.6  # rare tokens have to be learned too
    optims = optimisers(model, lr=0.02, embed_lr=0.004)
    rates = Rates(*optims)
    began = time.monotonic()
    for step in range(steps):
        factor = min(1.0, (step + 1) / 10, 1.25 * (1 - step / steps))
        rates.scale(factor)
        tokens = torch.multinomial(chance, batch, replacement=False)
        states = states_of(model, tokens)
        leaf = states.detach().requires_grad_()
        head = model.embed.weight.detach().requires_grad_()
        total = 0.0
        for chunk, own in zip(leaf.split(ROWS), tokens.split(ROWS), strict=True):
            wanted = torch.zeros(len(own), vocabulary)
            for row, token in enumerate(own.tolist()):
                at = slice(int(starts[token]), int(starts[token + 1]))
                wanted[row, followers[at]] = counts[at] / counts[at].sum()
            loss = F.cross_entropy(chunk @ head.T, wanted, reduction="sum") / batch
            loss.backward()
            total += float(loss.detach())
        states.backward(leaf.grad)
        model.embed.weight.grad.add_(head.grad)
        for optim in optims:
            optim.step()
            optim.zero_grad(set_to_none=True)
        if step % 20 == 0 or step == steps - 1:
            print(f"step {step}  {total:.3f} nats  {time.monotonic() - began:.0f} s", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="7m", choices=SIZES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", default="main")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=2048, help="rows of the table per step")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    run = Run(args.run)
    if run.file.exists():
        raise SystemExit(f"{run.file} exists already")
    model = Decoder(SIZES[args.size])
    table = count_pairs(Rows(args.data), model.shape.vocabulary)
    print(f"{len(table[1]) / 1e6:.2f}M different pairs")
    fit(model, table, args.steps, args.batch)
    look_back(model.layers[0], model.shape)  # type: ignore[arg-type]
    run.save_weights(model)
    print(f"saved {run.file}")


if __name__ == "__main__":
    main()
