"""Make the end likelier or less likely everywhere, by as many nats, without training.

    python -m training.bias --model FOLDER --by -0.6 --data training/work/packed/f --out OTHER

How much an end is wanted where text repeats itself trades loops for wrong ends, and is known only
after a decay. Qwen2's head has no bias, but the final states have a common direction: the end's
embedding moves along the v that makes v.h nearest to one over states h of the data, those near an
end counting more. What the end says when it is read (the embedding is tied) hardly changes.
"""

import argparse
from pathlib import Path

import torch
from torch import Tensor

from training.export import load, write
from training.model import Decoder
from training.tokenizer import end_id
from training.train import Rows

ROWS = 40  # of each file
NEAR = 6.0  # nats behind the first choice: ends this probable count
RIDGE = 1e-3  # of the mean square of the states


def common(states: Tensor, weights: Tensor) -> Tensor:
    """states [n, hidden], weights [n] -> v [hidden] with v.h about one for each state h."""
    scaled = (states * weights[:, None]).double()
    gram = scaled.T @ states.double()
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    return torch.linalg.solve(gram + ridge, scaled.sum(dim=0)).float()


@torch.no_grad()
def shifted(model: Decoder, rows: list[Tensor], by: float) -> tuple[float, float]:
    """Move the end's embedding; mean and spread of what its logits change by, near an end."""
    end = end_id(model.shape.vocabulary)
    states, nearness = [], []
    for row in rows:
        found = model.hidden(row[None, :-1], end)[0]
        logits = found @ model.embed.weight.T
        margin = logits[:, end] - logits.index_fill(1, torch.tensor([end]), -1e9).amax(dim=1)
        states.append(found)
        nearness.append(torch.sigmoid(margin + NEAR))
    kept, weights = torch.cat(states), torch.cat(nearness)
    move = by * common(kept, weights)
    model.embed.weight[end] += move
    changes = kept @ move
    mean = float((changes * weights).sum() / weights.sum())
    spread = ((changes - mean).square() * weights).sum() / weights.sum()
    return mean, float(spread.sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--by", type=float, required=True, help="nats")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.model).eval()
    before = model.embed.weight[end_id(model.shape.vocabulary)].norm().item()
    mean, spread = shifted(
        model, [row for path in args.data for row in Rows(path).read(0, ROWS)], args.by
    )
    after = model.embed.weight[end_id(model.shape.vocabulary)].norm().item()
    print(
        f"logits of the end {mean:+.2f}, give or take {spread:.2f}; {before:.2f} long, {after:.2f}"
    )
    write(model, args.out, args.model)


if __name__ == "__main__":
    main()
