"""Policy drift: the target's own weights change under training, and drafting follows.

    python -m bench.policy [--language go] [--updates 10] [--text FOLDER]

The bundled target is fine-tuned on another language, a few optimiser steps at a time. After every
update its weights are replaced in place and a batch of prompts is sampled twice: once with drafters
that go on learning, with some idle time after the update, once with the same drafters as they were
before the first update. Both give the same text; counted are accepted tokens per step, and of
drafted ones. Step costs are a fixed profile (verifying 16 / 32 / 64 rows = 1.05 / 1.10 / 1.25 of
one), and so is the price of the static drafter (a twentieth of a step, ``bench.replay.static``), so
that what is drafted does not depend on the machine. ``--together`` prompts are decoded at a time:
many of them leave each a row or two, and they draft from each other while they run, in the frozen
system as well.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor
from torch.nn import functional

from atlasd.draft.registry import Drafting
from atlasd.engine.costs import StepCosts
from atlasd.engine.inprocess import Output
from atlasd.engine.protocol import Sampling
from atlasd.engine.rollouts import Rollouts
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.adapter import BUNDLED, SUFFIX, Accepted, held_out, prompts_in
from bench.replay.static import Paid, Priced
from bench.report import table
from training.export import load, write
from training.model import Decoder

OUTPUT = 64
PROFILE = ((1, 1.0), (2, 1.005), (4, 1.01), (8, 1.03), (16, 1.05), (32, 1.10), (64, 1.25))
STEP_MS = 8.0
DRAFT_MS = STEP_MS / 20


def profile() -> StepCosts:
    """Costs of a GPU, where rows are nearly free and a draft token of a small model is not."""
    costs = StepCosts(lambda rows: rows)
    for rows, factor in PROFILE:
        costs.measure(rows, 0, STEP_MS * factor)
    return costs


def price(drafting: Drafting) -> None:
    """Have a token of the static drafter take ``DRAFT_MS``, whatever it takes here."""
    neural = drafting.neural
    if neural is None:
        return
    model, correction_of = Priced(neural.model, DRAFT_MS), neural.correction_of

    def paid(repository: str | None) -> Paid | None:
        corrected = correction_of(repository)
        return None if corrected is None else Paid(model, corrected)

    neural.model, neural.correction_of = model, paid
    neural._now = lambda: model.spent_ms / 1e3
    neural.token_ms, neural.read_ms = DRAFT_MS, 0.0


def by_source(outputs: list[Output]) -> str:
    """Accepted tokens a step of each source, the best first."""
    found: Counter[str] = Counter()
    for output in outputs:
        found.update(output.stats.accepted)
    steps = sum(output.stats.steps for output in outputs)
    return ", ".join(f"{name} {count / steps:.2f}" for name, count in found.most_common() if count)


def counted(outputs: list[Output]) -> Accepted:
    return Accepted(
        sum(sum(output.stats.drafted.values()) for output in outputs),
        sum(sum(output.stats.accepted.values()) for output in outputs),
        sum(output.stats.steps for output in outputs),
    )


class Policy:
    """The target in training, and how far it has come."""

    def __init__(self, texts: list[list[int]], rate: float) -> None:
        self.model: Decoder = load(BUNDLED / "target")
        self._optimiser = torch.optim.AdamW(self.model.parameters(), lr=rate, weight_decay=0.0)
        self._texts = [text for text in texts if len(text) > 300]
        self._draw = random.Random(4)
        self._probe = torch.tensor([self._row(256) for _ in range(4)])
        self._first = self._distribution()

    def train(self, steps: int) -> float:
        """Next-token steps on 4 x 256 tokens; the last loss."""
        loss = torch.zeros(())
        for _ in range(steps):
            rows = torch.tensor([self._row(257) for _ in range(4)])
            logits = self.model.logits(rows[:, :-1]).flatten(0, 1)
            loss = functional.cross_entropy(logits, rows[:, 1:].flatten())
            self._optimiser.zero_grad()
            loss.backward()
            self._optimiser.step()
        return float(loss.detach())

    def divergence(self) -> float:
        """Mean KL, in nats a token, from what it says now to what it said at first."""
        now = self._distribution()
        return float((now.exp() * (now - self._first)).sum(-1).mean())

    @torch.no_grad()
    def _distribution(self) -> Tensor:
        return self.model.logits(self._probe).log_softmax(-1)

    def _row(self, length: int) -> list[int]:
        text = self._draw.choice(self._texts)
        start = self._draw.randrange(max(1, len(text) - length))
        return (text[start : start + length] + [0] * length)[:length]


def measure(options: argparse.Namespace) -> str:
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    began = time.process_time()
    tokenizer = Tokenizer.load(find_model(None, paths()))
    texts = tokenizer.encode_batch(held_out(options.language, options.text))
    policy = Policy(texts, options.rate)
    prompts = prompts_in(texts, options.prompts, 2)
    rows: list[list[object]] = []
    with (
        TemporaryDirectory(prefix="atlasd-policy-") as folder,
        Rollouts(costs=profile(), threads=options.threads) as adaptive,
        Rollouts(costs=profile(), threads=options.threads) as frozen,
    ):
        for arm in (adaptive, frozen):
            price(arm.drafting)

        def sample(seed: int, arms: tuple[Rollouts, ...], learn: bool) -> list[list[Output]]:
            found: list[list[Output]] = []
            for arm in arms:
                outputs: list[Output] = []
                for at in range(0, len(prompts), options.together):
                    sampling = Sampling(temperature=options.temperature, seed=seed, choice=at)
                    outputs += arm.sample(
                        prompts[at : at + options.together],
                        max_tokens=OUTPUT,
                        sampling=sampling,
                        learn=learn or arm is adaptive,
                    )
                found.append(outputs)
            return found

        for seed in range(options.warm):  # both know the policy that the updates start from
            sample(1000 + seed, (adaptive, frozen), learn=True)
            for arm in (adaptive, frozen):
                arm.learn(options.idle)
        ratio = 0.0
        for update in range(options.updates + 1):
            if update:
                loss = policy.train(options.steps)
                path = Path(folder) / str(update)
                write(policy.model, path, BUNDLED / "target")
                adaptive.update(path)
                adaptive.learn(options.idle)
                # The frozen arm's target changes as well; its drafters are not told.
                frozen.update(path, adapt=False)
            else:
                loss = float("nan")
            seed = update
            ours, theirs = sample(seed, (adaptive, frozen), learn=False)
            if [output.tokens for output in ours] != [output.tokens for output in theirs]:
                raise SystemExit("the two arms sampled different text: drafting is not exact")
            one, other = counted(ours), counted(theirs)
            ratio = one.per_step / max(other.per_step, 1e-9)
            rows.append(
                [
                    update,
                    f"{policy.divergence():.3f}",
                    f"{loss:.2f}",
                    f"{one.per_step:.3f}",
                    f"{other.per_step:.3f}",
                    f"{ratio:.2f}",
                    f"{one.share:.2f} / {other.share:.2f}",
                    by_source(ours),
                    by_source(theirs),
                ]
            )
    title = (
        f"Policy drift (`python -m bench.policy`): {options.language}, temperature "
        f"{options.temperature}, {options.together} at a time, "
        f"{time.process_time() - began:.0f} s of processor; at the end {ratio:.2f} (goal 1.2)"
    )
    header = ["update", "KL from the start", "loss", "accepted per step", "frozen", "ratio"]
    header += ["accepted of drafted, both", "per step by source", "frozen, by source"]
    return table(title, header, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--language", default="go", choices=SUFFIX)
    parser.add_argument("--text", type=Path, help="a folder of files to train on")
    parser.add_argument("--updates", type=int, default=10)
    parser.add_argument("--steps", type=int, default=8, help="optimiser steps of an update")
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--together", type=int, default=1, help="prompts decoded at a time")
    parser.add_argument("--warm", type=int, default=2, help="batches before the first update")
    parser.add_argument("--idle", type=float, default=5.0, help="seconds of learning per update")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--threads", type=int, default=2)
    print(measure(parser.parse_args()))
