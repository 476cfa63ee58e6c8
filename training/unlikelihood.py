"""Teach the target to leave its loops: its own repetitions become less likely, the rest stays.

    python -m training.unlikelihood --run decayed --data training/work/packed/c --minutes 18
    python -m training.unlikelihood --target FOLDER --data training/work/packed/c --out FOLDER

A last stage. The target goes on greedily with pieces of the training data; where it falls into a
loop, as evaluate.is_loop sees one, what repeats is made less likely (sequence-level unlikelihood,
Welleck et al., 2019). Not every token of it: a loop is left at the one place where another token
is preferred, so only the `--weakest` tokens count, those with the closest rivals, until the rival
is `--margin` nats ahead. Every step also holds the distributions on rows of the data to what they
were (KL), which is no noise as long as nothing has changed. The embedding stays: a loop is a
matter of context, and drafters share the embedding. What trials gave: training/README.md.

The stage lives in run `--branch` and goes on there when it was interrupted.
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.distill import ROWS, divergence
from training.export import load, write
from training.fetch import HERE
from training.generate import Cache, advance
from training.model import Decoder, Shape
from training.muon import Muon
from training.tokenizer import end_id
from training.train import Rows, Run, optimisers
from training.workers import Workers

LONGEST_PERIOD, TIMES, LEAST = 50, 3, 30  # of a loop, as evaluate.is_loop sees one
SPARED = 12  # tokens of repetition that are never penalised: code does repeat that much
WARMUP = 5  # steps
MOMENTUM = 0.9
PROMPT = (48, 400)  # tokens of the data that are continued, from and to
LOOK_EVERY = 8  # generated tokens


class Loop(NamedTuple):
    """tokens[start:end] repeat with this period; no shorter piece of them counts as a loop yet."""

    start: int
    period: int
    end: int

    def repeated(self) -> range:
        """All but what came first, and but what is too short to be strange in code."""
        return range(self.start + max(self.period, SPARED), self.end)


def find_loop(tokens: list[int]) -> Loop | None:
    """The loop that is complete first, in the sense of `evaluate.is_loop`."""
    found: Loop | None = None
    row = np.array(tokens)
    for period in range(1, min(LONGEST_PERIOD, len(row) // TIMES) + 1):
        size = max(TIMES * period, LEAST)
        differs = np.flatnonzero(row[period:] != row[:-period])
        starts = np.concatenate(([0], differs + 1))  # of stretches that repeat
        ends = np.concatenate((differs, [len(row) - period])) + period
        long = np.flatnonzero(ends - starts >= size)
        if len(long):
            start = int(starts[long[0]])
            if found is None or start + size < found.end:
                found = Loop(start, period, start + size)
    return found


def plain_pieces(rows: Rows, count: int, length: int, special: int, seed: list[int]) -> Tensor:
    """[count, length]: random pieces of the data without special tokens, ids from `special` on."""
    rng = np.random.default_rng(seed)
    pieces: list[np.ndarray] = []
    while len(pieces) < count:
        row = rows.data[rng.integers(len(rows.data))]
        at = rng.integers(len(row) - length + 1)
        if int((piece := row[at : at + length]).max()) < special:
            pieces.append(piece)
    return torch.from_numpy(np.stack(pieces).astype(np.int64))


def own_loops(
    model: Decoder, prompts: Tensor, limit: int, stop: int
) -> list[tuple[list[int], Loop]]:
    """Greedy continuations of prompts [batch, length], up to `limit` tokens, that loop, cut there.

    The tokens include the prompt; the loop's places are counted from the end of the prompt.
    """
    length = prompts.shape[1]
    cache = Cache(model, length + limit, len(prompts))
    made = new = prompts
    found: list[tuple[list[int], Loop]] = []
    for at in range(1, limit + 1):
        new = advance(model, new, cache).argmax(dim=-1, keepdim=True)
        made = torch.cat((made, new), dim=1)
        if at % LOOK_EVERY and at < limit:
            continue
        going: list[int] = []
        for number, tokens in enumerate(made.tolist()):
            if (loop := find_loop(tokens[length:])) is not None:
                found.append((tokens[: length + loop.end], loop))
            elif stop not in tokens[length:]:
                going.append(number)
        if not going:
            break
        if len(going) < len(made):
            made, new, cache.data = made[going], new[going], cache.data[:, :, going]
    return found


def penalty(states: Tensor, head: Tensor, tokens: Tensor, margin: float) -> Tensor:
    """How far each of tokens [rows] is above a place `margin` nats behind its best rival.

    states [rows, hidden]; the gradient is that of the token's log-probability: it hardly touches
    what is certain, such as the rest of a word, and is strongest where there was a choice.
    """
    scores = F.log_softmax(states @ head.T, dim=-1)
    picked = tokens[:, None]
    rivals = scores.detach().scatter(1, picked, -math.inf).amax(dim=-1)
    return (scores.gather(1, picked)[:, 0] - rivals + margin).clamp(min=0)


@dataclass(frozen=True)
class Settings:
    groups: int = 2  # of prompts, per step
    prompts: int = 16  # in a group
    limit: int = 200  # tokens of a continuation
    weight: float = 0.1
    margin: float = 0.5  # nats
    weakest: int = 2  # tokens of a loop
    seed: int = 1


def loop_loss(
    model: Decoder, found: list[tuple[list[int], Loop]], margin: float, weakest: int
) -> Tensor:
    """The mean penalty of each loop's `weakest` repeated tokens, summed over the loops."""
    end = end_id(model.shape.vocabulary)
    row: list[int] = []
    places: list[range] = []  # in the row
    for tokens, loop in found:
        begin = len(row) + len(tokens) - loop.end  # of the continuation
        repeated = loop.repeated()
        places.append(range(begin + repeated.start, begin + repeated.stop))
        row += [*tokens, end]  # one row of documents: nothing is padded
    packed = torch.tensor(row)
    picked = torch.tensor([place for several in places for place in several])
    states = model.hidden(packed[None], end)[0][picked - 1]
    costs = penalty(states, model.embed.weight, packed[picked], margin)
    of_loops = costs.split([len(several) for several in places])
    least = [of.topk(min(weakest, len(of)), largest=False).values.mean() for of in of_loops]
    return torch.stack(least).sum()


def anchor(model: Decoder, start: Decoder, batch: Tensor, parts: int) -> float:
    """Add the gradients of batch [rows, width] over `parts`: KL from `start`, in nats per token."""
    end = end_id(model.shape.vocabulary)
    with torch.no_grad():
        wanted = start.hidden(batch[:, :-1], end).flatten(0, 1)
    states = model.hidden(batch[:, :-1], end).flatten(0, 1)
    # One chunk's logits at a time: gradients of the states are collected, then sent back once.
    leaf, head, total = states.detach().requires_grad_(), model.embed.weight.detach(), 0.0
    for chunk, teacher in zip(leaf.split(ROWS), wanted.split(ROWS), strict=True):
        loss = divergence(chunk, teacher, head, head) * len(chunk) / (len(leaf) * parts)
        loss.backward()
        total += float(loss.detach())
    states.backward(leaf.grad)
    return total


class LoopWorkers(Workers):
    """Workers whose first `groups` parts of a step are continuations, the others rows to read."""

    def __init__(
        self,
        model: Decoder,
        start: Decoder,
        muon: Muon,
        rows: Rows,
        settings: Settings,
        count: int,
    ) -> None:
        self.start, self.rows, self.settings = start, rows, settings
        self.counts = torch.zeros(count, 3).share_memory_()  # of loops, their penalty, tokens
        super().__init__(model, muon, rows.read, count)

    def _work(self, number: int) -> None:
        self.losses[number] = 0.0
        self.counts[number] = 0.0
        groups = self.settings.groups
        while True:
            with self.job.get_lock():
                part, parts, rows, first = self.job
                self.job[0] += 1
            if part >= parts:
                return
            if part < groups:
                self.counts[number] += torch.tensor(self._penalise([first, part]))
            else:
                batch = self.read(first + (part - groups) * rows, rows)
                self.losses[number] += anchor(self.model, self.start, batch, parts - groups)

    def _penalise(self, place: list[int]) -> tuple[float, float, float]:
        """Add the gradients of one group's loops: their number, their penalty, their tokens."""
        settings, end = self.settings, end_id(self.model.shape.vocabulary)
        seed = [settings.seed, *place]
        least, most = PROMPT
        length = int(least * (most / least) ** np.random.default_rng(seed).random())
        prompts = plain_pieces(self.rows, settings.prompts, length, end, seed)
        found = own_loops(self.model, prompts, settings.limit, end)
        if not found:
            return 0.0, 0.0, 0.0
        loss = loop_loss(self.model, found, settings.margin, settings.weakest)
        (loss * settings.weight / (settings.groups * settings.prompts)).backward()
        return len(found), float(loss.detach()), sum(len(tokens) for tokens, _ in found)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--target", type=Path, default=HERE.parent / "atlasd/models/bundled/target")
    source.add_argument("--run", help="a training run's newest checkpoint instead of --target")
    parser.add_argument("--branch", default="unlooped", help="the run in which the stage lives")
    parser.add_argument("--out", type=Path, help="write the folder there at the end")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8192, help="tokens of the data per step")
    parser.add_argument("--prompts", type=int, default=32, help="continued per step")
    parser.add_argument("--limit", type=int, default=200, help="tokens of a continuation")
    parser.add_argument("--weight", type=float, default=0.1, help="of the penalty")
    parser.add_argument("--margin", type=float, default=0.5, help="nats behind the best rival")
    parser.add_argument("--weakest", type=int, default=2, help="tokens of a loop that count")
    parser.add_argument("--lr", type=float, default=0.004, help="of Muon, at the start")
    parser.add_argument("--small-lr", type=float, default=0.0004, help="of norms and biases")
    parser.add_argument("--minutes", type=float, default=18, help="all sessions together")
    parser.add_argument("--save-minutes", type=float, default=4.0)
    parser.add_argument("--threads", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def begin(args: argparse.Namespace, branch: Run) -> dict[str, object]:
    """The branch's own checkpoint, else that of its source with the stage's counts at zero."""
    if (saved := branch.load()) is not None:
        return saved
    fresh: dict[str, object] = {"step": 0, "seconds": 0.0, "optimisers": []}
    if args.run is None:
        model = load(args.target)
        shape, state = model.shape.to_dict(), model.state_dict()
        fresh |= {"tokens": 0, "positions": {}}
        return {"shape": shape, "model": state, "start": state, **fresh}
    if (saved := Run(args.run).load()) is None:
        raise SystemExit(f"there is no run {args.run}")
    return {**saved, "start": saved["model"], **fresh}


def main() -> None:
    args = parse()
    torch.manual_seed(args.seed)
    branch = Run(args.branch)
    state = begin(args, branch)
    model = Decoder(Shape(**state["shape"]))  # type: ignore[arg-type]
    model.load_state_dict(state["model"])  # type: ignore[arg-type]
    model.embed.weight.requires_grad_(False)
    start = Decoder(model.shape).requires_grad_(False)
    start.load_state_dict(state["start"])  # type: ignore[arg-type]
    optims = muon, adam = optimisers(model, args.lr, args.small_lr)
    adam.param_groups[0]["params"] = []  # the embedding
    for optim, saved in zip(optims, state["optimisers"], strict=False):  # type: ignore[call-overload]
        optim.load_state_dict(saved)
    rows = Rows(args.data)
    length = rows.data.shape[1] - 1
    groups = args.threads
    settings = Settings(
        groups,
        args.prompts // groups,
        args.limit,
        args.weight,
        args.margin,
        args.weakest,
        args.seed,
    )
    workers = LoopWorkers(model, start, muon, rows, settings, args.threads)
    read = max(1, args.batch // length)
    step, tokens, before = state["step"], state["tokens"], state["seconds"]
    positions: dict[str, int] = dict(state["positions"])  # type: ignore[call-overload]
    position = positions.get(args.data.name, 0)
    began = saved_at = time.monotonic()

    def checkpoint() -> None:
        branch.save(
            {
                "shape": model.shape.to_dict(),
                "model": model.state_dict(),
                "start": start.state_dict(),
                "optimisers": [optim.state_dict() for optim in optims],
                "step": step,
                "tokens": tokens,
                "seconds": before + time.monotonic() - began,  # type: ignore[operator]
                "positions": {**positions, args.data.name: position},
            }
        )

    while (done := (before + time.monotonic() - began) / 60 / args.minutes) < 1:  # type: ignore[operator]
        factor = min((step + 1) / WARMUP, 1.0) * (1 - done)  # type: ignore[operator]
        for group in adam.param_groups:
            group["lr"] = args.small_lr * factor
        kl = workers.step(position, groups + read, 1, args.lr * factor, MOMENTUM)
        if not math.isfinite(kl + float(workers.counts.sum())):
            raise RuntimeError(f"KL is {kl} at step {step}")
        adam.step()
        workers.clear()
        loops, cost, added = workers.counts.sum(dim=0).tolist()
        position, step = position + read, step + 1  # type: ignore[operator]
        tokens += read * length + int(added)  # type: ignore[operator]
        entry = {
            "step": step,
            "kl": kl,
            "loops": loops / (groups * settings.prompts),
            "penalty": cost / max(1.0, loops),
            "lr": factor,
        }
        branch.log(entry)
        print(
            f"step {step}  {done:.0%}  KL {kl:.4f}  loops {entry['loops']:.0%}"
            f"  penalty {entry['penalty']:.2f}  lr x{factor:.2f}",
            flush=True,
        )
        if time.monotonic() - saved_at > 60 * args.save_minutes:
            checkpoint()
            saved_at = time.monotonic()
    checkpoint()
    workers.close()
    print(f"saved {branch.file}")
    if args.out:
        tokenizer = HERE / "work" / "tokenizer" if args.run else args.target
        write(model, args.out, tokenizer)
        print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
