"""The online adapter after a shift: a drafter of Python alone, a developer who now writes Rust.

    python -m bench.adapter [--language rust] [--requests 120] [--text FOLDER]

The bundled target completes half of the held-out files of a language, with idle time between the
requests, as an editor leaves it; the files themselves are watched. Then its completions in the
other half are drafted again, greedy chains of fixed lookahead, with the static drafter alone and
with the adapter. Everything is counted, nothing is timed: tokens of a step that were drafted and
accepted, and the share of drafted tokens that were.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atlasd.draft.drafter import StreamView
from atlasd.draft.neural import Neural
from atlasd.engine.protocol import Sampling
from atlasd.engine.rollouts import Rollouts
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.report import table

ROOT = Path(__file__).resolve().parents[1]
BUNDLED = ROOT / "atlasd" / "models" / "bundled"
CORPUS = ROOT / "training" / "work" / "corpus"
SUFFIX = {"python": ".py", "rust": ".rs", "typescript": ".ts", "go": ".go", "c": ".c"}

PROMPT, OUTPUT = 256, 64
IDLE_S = 1.0
"""Idle time after every request; what is worth learning takes less."""


@dataclass(frozen=True)
class Accepted:
    """What became of drafts along the target's own text."""

    drafted: int
    accepted: int
    steps: int

    @property
    def per_step(self) -> float:
        return self.accepted / max(1, self.steps)

    @property
    def share(self) -> float:
        return self.accepted / max(1, self.drafted)


def held_out(language: str, folder: Path | None) -> list[str]:
    """Texts of a language nobody was trained on: a folder's, or those the recipe set apart."""
    if folder is not None:
        files = sorted(folder.rglob(f"*{SUFFIX[language]}"))
        return [path.read_text(errors="replace") for path in files]
    path = CORPUS / f"held_out-{language}.jsonl"
    if not path.is_file():
        raise SystemExit(f"Give --text FOLDER with {language} files: {path.name} is not there.")
    return [json.loads(line)["text"] for line in path.open()]


def prompts_in(texts: Sequence[list[int]], count: int, seed: int) -> list[list[int]]:
    """Runs of tokens that end somewhere in these texts."""
    draw = random.Random(seed)
    long = [text for text in texts if len(text) > PROMPT + 50]
    found = []
    for _ in range(count):
        text = draw.choice(long)
        start = draw.randrange(len(text) - PROMPT)
        found.append(text[start : start + PROMPT])
    return found


def replay(
    neural: Neural,
    prompts: Sequence[list[int]],
    outputs: Sequence[list[int]],
    sampling: Sampling,
    repository: str,
    lookahead: int,
) -> Accepted:
    """Draft along ``outputs`` as the engine would: after every step from what was verified."""
    neural.least = 0.0
    drafted = accepted = steps = 0
    for index, (prompt, text) in enumerate(zip(prompts, outputs, strict=True)):
        stream = StreamView(
            -1 - index,
            [*prompt, text[0]],
            len(prompt),
            repository,
            temperature=sampling.temperature,
            seed=sampling.seed,
            choice=sampling.choice + index,
        )
        neural.begin(stream)
        at = 1
        while at < len(text):
            tokens = neural.propose(stream, [], min(lookahead, len(text) - at)).tokens
            good = 0
            while good < len(tokens) and tokens[good] == text[at + good]:
                good += 1
            drafted, accepted, steps = drafted + len(tokens), accepted + good, steps + 1
            stream.tokens += text[at : at + good + 1]
            at += good + 1
        neural.end(stream)
    return Accepted(drafted, accepted, steps)


def measure(options: argparse.Namespace) -> str:
    files = find_model(options.model, paths())
    tokenizer = Tokenizer.load(files)
    texts = tokenizer.encode_batch(held_out(options.language, options.text))
    random.Random(1).shuffle(texts)
    half = len(texts) // 2
    sampling = Sampling(temperature=options.temperature, seed=1)
    began = time.process_time()
    with Rollouts(options.model, drafter=options.drafter, threads=1) as rollouts:
        neural = rollouts.drafting.neural
        assert neural is not None
        tests = prompts_in(texts[half:], options.tests, 3)
        outputs = [
            output.tokens
            for output in rollouts.sample(
                tests, max_tokens=OUTPUT, sampling=sampling, drafting=False, learn=False
            )
        ]

        def accepted(repository: str) -> Accepted:
            return replay(neural, tests, outputs, sampling, repository, options.lookahead)

        frozen = accepted("no repository")
        for number, text in enumerate(texts[:half]):
            tokens = np.array(text, np.int32)
            rollouts.drafting.add_segment(str(number), "rollouts", "file", tokens, options.language)
        rows: list[list[object]] = []

        def row(what: str, found: Accepted) -> None:
            gain = found.per_step / frozen.per_step - 1
            rows.append(
                [what, f"{found.per_step:.3f}", f"{found.share:.3f}", f"{100 * gain:+.0f} %"]
            )

        row("static alone", frozen)
        before = time.process_time()
        rollouts.learn(options.warm)
        warm = time.process_time() - before
        row(
            f"adapter, files read in idle time, no request yet ({warm:.0f} s)", accepted("rollouts")
        )
        traffic = prompts_in(texts[:half], options.requests, 2)
        for count, prompt in enumerate(traffic, 1):
            rollouts.sample([prompt], max_tokens=OUTPUT, sampling=sampling)
            rollouts.learn(IDLE_S)
            if count in (20, options.requests):
                row(f"adapter after {count} requests", accepted("rollouts"))
        spent = time.process_time() - began
    title = (
        f"Adapter (`python -m bench.adapter`): {options.language}, drafter {options.drafter.name}, "
        f"temperature {options.temperature}, lookahead {options.lookahead}, "
        f"{spent:.0f} s of processor"
    )
    header = ["", "accepted per step", "accepted of drafted", "against static (goal +25 %)"]
    return table(title, header, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--drafter", type=Path, default=BUNDLED / "drafter-python")
    parser.add_argument("--language", default="rust", choices=SUFFIX)
    parser.add_argument("--text", type=Path, help="a folder of held-out files")
    parser.add_argument("--requests", type=int, default=120)
    parser.add_argument("--tests", type=int, default=40)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--lookahead", type=int, default=4)
    parser.add_argument("--warm", type=float, default=90.0, help="seconds before the first request")
    print(measure(parser.parse_args()))
