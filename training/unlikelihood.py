"""Teach the target to leave its loops: unlikelihood of its own repetitions beside plain training.

    python -m training.unlikelihood --run decayed --data training/work/packed/c --minutes 18
    python -m training.unlikelihood --target FOLDER --data training/work/packed/c --out FOLDER

A last stage. The target goes on greedily with pieces of the training data; where it falls into a
loop, the tokens of the third repetition are made less likely (sequence-level unlikelihood, Welleck
et al., 2019) until each is at most `--share` as probable as the same token was when it came first
(a bound relative to the first time as in DITTO, Xu et al., 2022: what a grammar demands stays
probable). Every step also reads rows of the data as they are, so that the rest is not forgotten.
The embedding stays: a loop is a matter of context, and drafters share the embedding.

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

from training.export import load, write
from training.fetch import HERE
from training.generate import Cache, advance
from training.model import Decoder, Shape
from training.muon import Muon
from training.tokenizer import end_id
from training.train import Rows, Run, optimisers
from training.workers import Workers, backward

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

    def penalised(self) -> range:
        """The third repetition, later where the period is short."""
        return range(self.start + max((TIMES - 1) * self.period, SPARED), self.end)


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


def penalty(states: Tensor, head: Tensor, tokens: Tensor, bound: Tensor) -> Tensor:
    """-log(1 - p) of tokens [rows] under states [rows, hidden], 0 where p is at most `bound`."""
    logits = states @ head.T
    norm = logits.logsumexp(dim=-1)
    picked = tokens[:, None]
    others = logits.scatter(1, picked, -math.inf).logsumexp(dim=-1)
    probable = (logits.detach().gather(1, picked)[:, 0] - norm.detach()).exp()
    return torch.where(probable > bound, norm - others, 0.0)


@dataclass(frozen=True)
class Settings:
    groups: int = 2  # of prompts, per step
    prompts: int = 16  # in a group
    limit: int = 200  # tokens of a continuation
    weight: float = 1.0
    share: float = 0.5
    seed: int = 1


def loop_loss(model: Decoder, found: list[tuple[list[int], Loop]], share: float) -> Tensor:
    """The mean penalty of each loop's third repetition, summed over the loops."""
    end = end_id(model.shape.vocabulary)
    row: list[int] = []
    targets: list[int] = []  # places in the row that are penalised
    firsts: list[int] = []  # where the same token of the same loop came first
    weights: list[float] = []
    for tokens, loop in found:
        begin = len(row) + len(tokens) - loop.end  # of the continuation
        penalised = loop.penalised()
        targets += [begin + at for at in penalised]
        firsts += [begin + loop.start + (at - loop.start) % loop.period for at in penalised]
        weights += [1 / len(penalised)] * len(penalised)
        row += [*tokens, end]  # one row of documents: nothing is padded
    packed = torch.tensor(row)
    states = model.hidden(packed[None], end)[0]
    after, before, wanted = torch.tensor(targets), torch.tensor(firsts), packed[targets]
    head = model.embed.weight
    with torch.no_grad():
        logits = F.linear(states[before - 1], head)
        first = (logits.gather(1, wanted[:, None])[:, 0] - logits.logsumexp(dim=-1)).exp()
    return torch.tensor(weights) @ penalty(states[after - 1], head, wanted, share * first)


class LoopWorkers(Workers):
    """Workers whose first `groups` parts of a step are continuations, the others rows to read."""

    def __init__(
        self, model: Decoder, muon: Muon, rows: Rows, settings: Settings, count: int
    ) -> None:
        self.rows, self.settings = rows, settings
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
                self.losses[number] += backward(self.model, batch, parts - groups)

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
        loss = loop_loss(self.model, found, settings.share)
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
    parser.add_argument("--weight", type=float, default=1.0, help="of the penalty")
    parser.add_argument("--share", type=float, default=0.5, help="of the first probability")
    parser.add_argument("--lr", type=float, default=0.002, help="of Muon, at the start")
    parser.add_argument("--small-lr", type=float, default=0.0002, help="of norms and biases")
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
        return {"shape": shape, "model": state, "tokens": 0, "positions": {}, **fresh}
    if (saved := Run(args.run).load()) is None:
        raise SystemExit(f"there is no run {args.run}")
    return {**saved, **fresh}


def main() -> None:
    args = parse()
    torch.manual_seed(args.seed)
    branch = Run(args.branch)
    state = begin(args, branch)
    model = Decoder(Shape(**state["shape"]))  # type: ignore[arg-type]
    model.load_state_dict(state["model"])  # type: ignore[arg-type]
    model.embed.weight.requires_grad_(False)
    optims = muon, adam = optimisers(model, args.lr, args.small_lr)
    adam.param_groups[0]["params"] = []  # the embedding
    for optim, saved in zip(optims, state["optimisers"], strict=False):  # type: ignore[call-overload]
        optim.load_state_dict(saved)
    rows = Rows(args.data)
    length = rows.data.shape[1] - 1
    groups = args.threads
    settings = Settings(
        groups, args.prompts // groups, args.limit, args.weight, args.share, args.seed
    )
    workers = LoopWorkers(model, muon, rows, settings, args.threads)
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
        loss = workers.step(position, groups + read, 1, args.lr * factor, MOMENTUM)
        if not math.isfinite(loss + float(workers.counts.sum())):
            raise RuntimeError(f"loss is {loss} at step {step}")
        adam.step()
        workers.clear()
        loops, unlikelihood, penalised = workers.counts.sum(dim=0).tolist()
        position, step = position + read, step + 1  # type: ignore[operator]
        tokens += read * length + int(penalised)  # type: ignore[operator]
        entry = {
            "step": step,
            "loss": loss,
            "loops": loops / (groups * settings.prompts),
            "penalty": unlikelihood / max(1.0, loops),
            "lr": factor,
        }
        branch.log(entry)
        print(
            f"step {step}  {done:.0%}  loss {loss:.3f}  loops {entry['loops']:.0%}"
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
