"""What to look at while a model learns to stop: where it ends, and whether it goes round."""

import random

import numpy as np
import torch
from tokenizers import Tokenizer

from training import repeats
from training.evaluate import is_loop
from training.fetch import HERE
from training.generate import continue_all
from training.model import Decoder
from training.pack import read
from training.tokenizer import SHARES


class Watch:
    """Pieces of training files; called with a model, a line to print about it."""

    def __init__(self, end: int) -> None:
        tokenizer = Tokenizer.from_file(str(HERE / "work" / "tokenizer" / "tokenizer.json"))
        rng, self.end = random.Random(99), end
        self.started: list[list[int]] = []
        rows: list[list[int]] = []
        pools = [rng.sample(read("train", name), 300) for name in SHARES]
        while len(rows) < 60:
            text = pools[len(rows) % len(pools)].pop().text
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if len(ids) > 1000:
                self.started.append(ids[:400])
                rows.append(ids[-1000:])
        self.text = torch.tensor(rows)

    @torch.no_grad()
    def __call__(self, model: Decoder) -> str:
        made = continue_all(model, self.started, 200, self.end)
        firsts = torch.cat([model.logits(r[:, :-1]).argmax(dim=-1) for r in self.text.split(2)])
        wrong = (firsts == self.end) & (self.text[:, 1:] != self.end)
        run, _ = repeats.measures(self.text.numpy()[:, :-1])
        again = wrong & torch.from_numpy(run >= 14)
        loops = [is_loop(text) for text in made]
        ended = [text for text in made if len(text) < 200]
        clean = sum(repeats.measures(np.array([text or [0]]))[0][0, -1] < 8 for text in ended)
        per = 10_000 / firsts.numel()
        return (
            f"loops {sum(loops) / len(made):.2f}  ended {len(ended) / len(made):.2f}"
            f" (not going round {clean / len(made):.2f})"
            f"  wrong ends {float(wrong.sum()) * per:.1f} of 10,000,"
            f" where it repeats {float(again.sum()) * per:.1f},"
            f" rows with one {float(wrong.any(dim=1).float().mean()):.2f}"
        )
