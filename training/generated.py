"""Rows of text that the target itself continues, for distilling its drafters.

    python -m training.generated --data training/work/packed/a --out training/work/packed/g

A drafter meets what the target writes, which is not what people write: each row begins as a row of
the data and goes on with tokens sampled from the target.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.export import load
from training.fetch import HERE
from training.generate import Cache, advance
from training.model import Decoder, Shape
from training.train import RUNS, Rows


def continued(model: Decoder, rows: Tensor, kept: int, temperature: float) -> Tensor:
    """rows [batch, width] with all after the first `kept` tokens sampled from the model."""
    batch, width = rows.shape
    cache = Cache(model, width, batch)
    made = rows.clone()
    new = rows[:, :kept]
    for at in range(kept, width):
        logits = advance(model, new, cache)
        noise = -torch.empty_like(logits).exponential_().log()  # Gumbel: argmax samples
        new = (logits / temperature + noise).argmax(dim=-1, keepdim=True)
        made[:, at : at + 1] = new
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=HERE.parent / "atlasd/models/bundled/target")
    parser.add_argument("--run", help="a training run's newest checkpoint instead of --target")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--first-row", type=int, default=0)
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--read", type=int, default=0, help="rows of the data mixed in as they are")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed)
    if args.run:
        saved = torch.load(RUNS / args.run / "checkpoint.pt", weights_only=False)
        target = Decoder(Shape(**saved["shape"]))
        target.load_state_dict(saved["model"])
    else:
        target = load(args.target)
    data, began = Rows(args.data), time.monotonic()
    width = data.data.shape[1]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    parts = [data.read(args.first_row + args.rows, args.read)]
    for first in range(0, args.rows, args.batch):
        rows = data.read(args.first_row + first, min(args.batch, args.rows - first))
        parts.append(continued(target.eval(), rows, rng.randint(64, width // 2), args.temperature))
        speed = (first + len(rows)) * width / (time.monotonic() - began)
        print(f"{first + len(rows)}/{args.rows} rows  {speed:.0f} tokens/s", flush=True)
    mixed = torch.cat(parts)
    mixed = mixed[torch.randperm(len(mixed))]
    mixed.numpy().astype(np.uint16).tofile(args.out.with_suffix(".bin"))
    meta = {"width": width, "rows": len(mixed)}
    args.out.with_suffix(".json").write_text(json.dumps(meta))


if __name__ == "__main__":
    main()
