"""Go on with a run, a quarter of its rows circles: what comes next, and to end where it goes round.

    python -m training.stopping --run main --to stopping --data training/work/packed/a \
        --circles training/work/packed/circles --minutes 50

Rows of the data are learned as in `training.train`, at its constant rate; text that repeats itself
and goes on is among them. In rows of circles (`training.circles`) the target's own words are not
learned, only where to end. That a token repeats what was said has to be noticed before it can be
acted upon, and ends are rare: so readers of every layer but the first are taught at every token how
long the text has been repeating itself (they are no part of the model), and five heads where to
look (`training.attending`).
"""

import argparse
import json
import math
import time
from pathlib import Path

import torch

from training import attending
from training.hands import Hands
from training.lesson import Readers, Sums, backward
from training.mixture import Mixture
from training.model import Decoder, Shape
from training.rates import Rates, left
from training.tokenizer import end_id
from training.train import Run, optimisers
from training.watch import Watch
from training.workers import keep_memory

READING = 0.003  # the readers' learning rate
MOMENTUM = 0.95


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="begin with its newest checkpoint")
    parser.add_argument("--to", required=True, help="run to write; continued where it was left")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--circles", type=Path, nargs="+", required=True)
    parser.add_argument("--batch", type=int, default=8192, help="tokens per step")
    parser.add_argument("--share", type=float, default=0.25, help="of circles, of the tokens")
    parser.add_argument("--lr", type=float, default=0.006, help="of Muon")
    parser.add_argument("--embed-lr", type=float, default=0.0008, help="of AdamW")
    parser.add_argument("--ends", type=float, default=1.0, help="weight of wanted ends")
    parser.add_argument("--open", type=float, default=1.0, help="weight of ends not to come yet")
    parser.add_argument("--readers", type=float, default=0.1, help="weight of the readers")
    parser.add_argument("--attention", type=float, default=0.1, help="weight of where heads look")
    parser.add_argument("--decay-steps", type=int, default=0, help="the rate falls to zero")
    parser.add_argument("--decay-minutes", type=float, default=0, help="so it does in this time")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--watch-minutes", type=float, default=8)
    parser.add_argument("--save-minutes", type=float, default=3)
    return parser.parse_args()


class Learner:
    """The model, its readers and their optimisers, as a checkpoint holds them."""

    def __init__(self, saved: dict[str, object], lr: float, embed_lr: float) -> None:
        shape = Shape(**saved["shape"])  # type: ignore[arg-type]
        self.model, self.readers = Decoder(shape), Readers(shape)
        self.end = end_id(shape.vocabulary)
        muon, adam = optimisers(self.model, lr, embed_lr)
        reading = torch.optim.AdamW(self.readers.parameters(), lr=READING, weight_decay=0.0)
        self.optims = (muon, adam, reading)
        self.rates = Rates(*self.optims)
        self.model.load_state_dict(saved["model"])  # type: ignore[arg-type]
        for optim, state in zip((muon, adam), saved["optimisers"], strict=True):  # type: ignore[call-overload]
            optim.load_state_dict(state)
        if "readers" in saved:
            self.readers.load_state_dict(saved["readers"])  # type: ignore[arg-type]
            reading.load_state_dict(saved["reading"])  # type: ignore[arg-type]
        muon.param_groups[0]["momentum"] = MOMENTUM

    def step(self, factor: float) -> None:
        """Apply the gradients at that share of the rates."""
        self.rates.scale(factor)
        for optim in self.optims:
            optim.step()
            optim.zero_grad(set_to_none=True)

    def state(self) -> dict[str, object]:
        muon, adam, reading = (optim.state_dict() for optim in self.optims)
        return {
            "shape": self.model.shape.to_dict(),
            "model": self.model.state_dict(),
            "optimisers": [muon, adam],
            "readers": self.readers.state_dict(),
            "reading": reading,
        }


class Course:
    """A run on its way: where it is, the steps it takes, and what it leaves on disk."""

    def __init__(
        self, run: Run, saved: dict[str, object], learner: Learner, args: argparse.Namespace
    ) -> None:
        self.run, self.learner = run, learner
        self.mixture = Mixture(args.data, args.circles, args.batch, args.share, learner.end)
        self.step, self.tokens, self.decayed = (
            int(saved[name])  # type: ignore[call-overload]
            for name in ("step", "tokens", "decayed")
        )
        self.seconds = saved["seconds"]
        self.positions: dict[str, int] = dict(saved["positions"])  # type: ignore[call-overload]
        self.places = [self.positions.get(name, 0) for name in self.mixture.names]
        self.decays = bool(args.decay_steps)
        self.weights = args.ends, args.open, args.readers, args.attention
        # While they learn where to look, others may come nearer: those that began go on.
        known = saved.get("heads")
        rows = self.mixture.data.read(0, 2)[:, :600]
        self.heads = attending.nearest_heads(learner.model, rows) if known is None else list(known)  # type: ignore[call-overload]
        print(f"heads {self.heads}")
        modules = [learner.model, learner.readers]
        self.hands = Hands(modules, self.learn, self.mixture.rows, args.workers)
        print(f"{self.mixture}; end {learner.end}")
        self.sums, self.since, self.marked = Sums(), 0, time.monotonic()

    def learn(self, number: int, places: list[int]) -> Sums:
        """Add the gradients of row `number` of the step at those places."""
        row, kinds = self.mixture.read(number, places)
        count, learner = self.mixture.tokens, self.learner
        return backward(learner.model, learner.readers, row, kinds, count, self.weights, self.heads)

    def advance(self, factor: float) -> None:
        """Take a step at that share of the rates."""
        sums = self.hands.step(self.places)
        if not math.isfinite(sums.text):
            raise RuntimeError(f"loss is {sums.text} at step {self.step}")
        self.learner.step(factor)
        self.places = self.mixture.after(self.places)
        self.sums, self.since = self.sums.plus(sums), self.since + 1
        self.step, self.tokens = self.step + 1, self.tokens + self.mixture.tokens
        self.decayed += self.decays

    def report(self, factor: float) -> None:
        """Print and log what was learned since the last report."""
        now = time.monotonic()
        pace = self.since * self.mixture.tokens / (now - self.marked)
        print(f"step {self.step}  {self.sums}  lr x{factor:.2f}  {pace:.0f} tokens/s", flush=True)
        entry = {"step": self.step, "tokens": self.tokens, "lr": factor}
        self.run.log({**entry, **self.sums._asdict(), "looked": None})  # type: ignore[dict-item]
        self.sums, self.since, self.marked = Sums(), 0, now

    def save(self) -> None:
        self.positions.update(zip(self.mixture.names, self.places, strict=True))
        counts = {"step": self.step, "tokens": self.tokens, "seconds": self.seconds}
        marks = {"decayed": self.decayed, "positions": self.positions, "heads": self.heads}
        self.run.save({**self.learner.state(), **counts, **marks})


def main() -> None:
    args = parse()
    keep_memory()
    torch.set_num_threads(1)
    fresh = not Run.exists(args.to)
    if fresh and not Run.exists(args.run):
        raise SystemExit(f"There is no run {args.run} to begin with: see training/work/runs.")
    run = Run(args.to)
    saved = (Run(args.run) if fresh else run).load()
    assert saved is not None
    if fresh:
        saved["decayed"] = 0
    learner = Learner(saved, args.lr, args.embed_lr)
    watch = Watch(learner.end)
    course = Course(run, saved, learner, args)
    began = saved_at = watched = time.monotonic()
    if fresh:
        print(watch(learner.model), flush=True)
    while (minutes := (time.monotonic() - began) / 60) < args.minutes:
        factor = left(course.decayed, args.decay_steps) * left(minutes, args.decay_minutes)
        if factor <= 0:
            break
        course.advance(factor)
        now = time.monotonic()
        if course.step % 10 == 0:
            course.report(factor)
        if (now - saved_at) / 60 > args.save_minutes:
            course.save()
            saved_at = now
        if (now - watched) / 60 > args.watch_minutes:
            print(watch(learner.model), flush=True)
            watched = time.monotonic()
    course.save()
    print(watch(learner.model), flush=True)
    print(json.dumps(course.positions))


if __name__ == "__main__":
    main()
