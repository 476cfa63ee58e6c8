"""Teach a trained decoder to end where it goes round, and nothing else (an experiment so far).

    python -m training.stopping --data training/work/packed/d --run stopping --steps 220

A step reads rows whose end the unchanged model wrote, greedily and never allowed to stop, and rows
of the data. Where a row goes round for good `<|endoftext|>` is wanted, from the end of the second
copy on; everywhere else what the unchanged model wants. The embedding and the first layer stay as
they are. That a token repeats what was said has to be noticed before it can be acted upon, and ends
are rare: so readers of every trained layer are taught at every token how long the text has been
repeating itself. They are thrown away in the end.
"""

import argparse
import random
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.circles import LEVELS, Lesson, Prompts, lesson, own_rows, picked
from training.evaluate import Subject, is_loop
from training.fetch import HERE
from training.generate import continue_all
from training.model import Decoder, rope_tables
from training.tokenizer import end_id
from training.train import Rows, Run, optimisers
from training.workers import keep_memory

FROZEN = 1  # layers, the lowest
FLOOR, LATE = 0.15, 0.25  # what a wanted end counts at least; once the row is a loop already
CHUNK = 256  # positions whose logits are held at once
OWN, REAL, LENGTH = 12, 4, 640  # rows of a step, tokens of those of the data
ROUND = 25  # steps between two batches of new rows
FIRST, KEPT = 4, 16  # batches before the first step, the newest that are read
WARMUP = 10  # steps


class Readers(nn.Module):
    """One linear map per trained layer: its output -> is the text repeating `LEVELS` tokens?"""

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(hidden), nn.Linear(hidden, len(LEVELS))) for _ in range(layers)
        )

    def loss(self, outputs: list[Tensor], levels: Tensor) -> Tensor:
        wanted = levels.float()
        losses = [
            F.binary_cross_entropy_with_logits(read(output), wanted, reduction="sum")
            for read, output in zip(self.maps, outputs, strict=True)
        ]
        return torch.stack(losses).sum()


def states(model: Decoder, tokens: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Final states, and the output of each trained layer: [n, width, hidden]."""
    cos, sin = rope_tables(model.shape, tokens.shape[1])
    x, outputs = model.embed(tokens), []
    for number, layer in enumerate(model.layers):
        with torch.set_grad_enabled(number >= FROZEN):
            x = layer(x, cos, sin, [tokens.shape[1]])
        if number >= FROZEN:
            outputs.append(x)
    return model.norm(x), outputs


class Sums(NamedTuple):
    """Of batches, for the log: nats and positions."""

    divergence: float = 0.0
    held: int = 0
    missed: float = 0.0  # nats of the wanted ends
    stops: int = 0
    ended: int = 0  # where the end was the first choice, of the stops

    def plus(self, other: "Sums") -> "Sums":
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))

    def __str__(self) -> str:
        held, stops = max(1, self.held), max(1, self.stops)
        return (
            f"KL {self.divergence / held:.4f}  ends {self.missed / stops:.3f} nats,"
            f" {self.ended / stops:.2f} first choice"
        )


def backward(
    model: Decoder, readers: Readers, frozen: Decoder, batch: Lesson, rates: tuple[float, float]
) -> Sums:
    """Add the gradients of a batch, per token of it; `rates`: of wanted ends, of the readers."""
    final, outputs = states(model, batch.tokens)
    with torch.no_grad():
        known = frozen.hidden(batch.tokens).flatten(0, 1)
    head, end = model.embed.weight.detach(), end_id(model.shape.vocabulary)
    leaf, stop, early = final.detach().flatten(0, 1), batch.stop.flatten(), batch.early.flatten()
    grad, sums = torch.zeros_like(leaf), Sums()
    for part in (stop | batch.held.flatten()).nonzero().flatten().split(CHUNK):
        scores = F.log_softmax(leaf[part] @ head.T, dim=-1)
        wanted = F.log_softmax(known[part] @ head.T, dim=-1)
        ends, chances = stop[part], wanted.exp()
        divergence = (chances * (wanted - scores)).sum(dim=-1)[~ends].sum()
        first = scores.argmax(dim=-1) == end
        missed = -scores[ends, end].sum()
        here = (float(divergence), int((~ends).sum()), float(missed), int(ends.sum()))
        sums = sums.plus(Sums(*here, int(first[ends].sum())))
        # An end has to win once in a circle: most is asked where the next token is least sure.
        unsure = FLOOR + 1 - chances.amax(dim=-1)
        weight = rates[0] * unsure * torch.where(early[part], 1.0, LATE)
        chances[ends] = F.one_hot(torch.tensor(end), len(head)).float()
        weight = torch.where(ends, weight, 1.0)
        grad[part] = (scores.exp_() - chances).mul_(weight[:, None]) @ head
    reading = readers.loss(outputs, batch.levels) * rates[1]
    count = batch.tokens.numel()
    torch.autograd.backward([final, reading / count], [grad.view_as(final) / count, None])
    return sums


@torch.no_grad()
def watch(model: Decoder, started: list[list[int]], data: Tensor, end: int) -> str:
    """Loops after training files' beginnings; ends in data [n, width] where the text goes on."""
    made = continue_all(model, started, 200, end)
    firsts = torch.cat([model.logits(rows[:, :-1]).argmax(dim=-1) for rows in data.split(4)])
    wrong = int(((firsts == end) & (data[:, 1:] != end)).sum())
    loops, ended = sum(map(is_loop, made)), sum(len(text) < 200 for text in made)
    return (
        f"loops {loops / len(made):.2f}  ended {ended / len(made):.2f}"
        f"  wrong ends {wrong / firsts.numel() * 10_000:.1f} of 10,000"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE.parent / "atlasd/models/bundled/target")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", default="stopping", help="continued where it was left")
    parser.add_argument("--steps", type=int, default=220, help="the rate falls to zero over them")
    parser.add_argument("--lr", type=float, default=0.003, help="of Muon")
    parser.add_argument("--ends", type=float, default=1.0, help="weight of the wanted ends")
    parser.add_argument("--readers", type=float, default=0.1, help="weight of the readers")
    parser.add_argument("--files", type=int, default=1500, help="of each language, to continue")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main() -> None:
    args = parse()
    keep_memory()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    subject = Subject(args.model)
    frozen, end = subject.model.requires_grad_(False), subject.end
    model, run, step = Subject(args.model).model, Run(args.run), 0
    for fixed in (model.embed, *model.layers[:FROZEN]):
        fixed.requires_grad_(False)
    readers = Readers(model.shape.hidden, model.shape.layers - FROZEN)
    muon, adam = optimisers(model, args.lr, args.lr / 6)
    adam.param_groups[0]["params"] = []
    adam.add_param_group({"params": list(readers.parameters()), "weight_decay": 0.0})
    base = [[args.lr], [0.0, args.lr / 6, 0.003]]
    if saved := run.load():
        step = saved["step"]  # type: ignore[assignment]
        model.load_state_dict(saved["model"])  # type: ignore[arg-type]
        readers.load_state_dict(saved["readers"])  # type: ignore[arg-type]
        for optim, state in zip((muon, adam), saved["optimisers"], strict=True):  # type: ignore[call-overload]
            optim.load_state_dict(state)
    others = Prompts(subject.encode, args.seed + 1, 60)
    started = others.draw(random.Random(1), 60, 400)
    text = torch.tensor(others.draw(random.Random(2), 60, 1000))
    prompts, data = Prompts(subject.encode, args.seed, args.files), Rows(args.data)
    own: list[Lesson] = []
    batches = max(0, step // ROUND + FIRST - KEPT)  # written so far; a seed for each
    began, sums = time.monotonic(), Sums()
    print(watch(model, started, text, end), flush=True)
    while step < args.steps:
        while batches < step // ROUND + FIRST:
            own = [*own[1 - KEPT :], own_rows(frozen, prompts, end, args.seed + batches)]
            batches += 1
        drawn = np.random.default_rng([args.seed, step])
        factor = min(1.0, (step + 1) / WARMUP, 1.1 * (1 - step / args.steps))
        for optim, rates in zip((muon, adam), base, strict=True):
            for group, rate in zip(optim.param_groups, rates, strict=True):
                group["lr"] = rate * factor
        mine = own[int(drawn.integers(len(own)))]
        numbers = drawn.choice(len(mine.tokens), OWN, replace=False)
        begin = int(drawn.integers(data.data.shape[1] - LENGTH))
        real = data.read(int(drawn.integers(len(data.data))), REAL)[:, begin : begin + LENGTH]
        for batch in (picked(mine, torch.from_numpy(numbers)), lesson(real, 0)):
            sums = sums.plus(backward(model, readers, frozen, batch, (args.ends, args.readers)))
        for optim in (muon, adam):
            optim.step()
            optim.zero_grad(set_to_none=True)
        step += 1
        if step % ROUND == 0 or step == args.steps:
            pace = (time.monotonic() - began) / 60
            print(f"step {step}  {sums}  lr x{factor:.2f}  {pace:.0f} minutes", flush=True)
            sums = Sums()
            states_of = [optim.state_dict() for optim in (muon, adam)]
            counts = {"step": step, "tokens": 0, "seconds": 0.0, "positions": {}}
            parts = {"model": model.state_dict(), "readers": readers.state_dict()}
            run.save({"shape": model.shape.to_dict(), **counts, **parts, "optimisers": states_of})
    print(watch(model, started, text, end), flush=True)


if __name__ == "__main__":
    main()
