"""The trained target decides: completions with drafting against the same without, in one process.

    python -m bench.live [REPOSITORY] [--sites 16] [--tokens 64] [--temperatures 0,0.8]
                         [--threads 1] [--streams 1,2,4,8] [--one-by-one]

Workloads: function bodies taken out of files of a repository whose other files are known (every
file one segment; the drafters learn from request to request, as in use); function bodies of
held-out source (the standard library) with nothing known; chat about the same code. Greedy and at
temperature 0.8. Each request is decoded plainly and with drafting, now the one first and now the
other; the prompt is in the cache for both. Excluded are requests whose text falls into a loop.
Ratios are of whole requests, their ends included, by processor time of one thread: by the wall a
busy machine would be measured (with more threads it has to be the wall). With several streams
there is a request for each at any time, until sixteen are over, and the time of all is compared. An
engine's first request, which finds nothing in memory, is not among them. Between two requests the
engine falls idle, as it does between a developer's, and puts streams that are over away; nobody
waits for that. Beside the ratios, from instrumentation, drafting time and the cost of rows that
were not accepted, over plain decoding.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from time import perf_counter, thread_time

import numpy as np

from atlasd.completion.chat import ChatTemplate
from atlasd.completion.families import declared_orders
from atlasd.completion.languages import language_of
from atlasd.completion.templates import Surroundings, Template, template_for
from atlasd.engine.inprocess import Output
from atlasd.engine.protocol import Sampling
from atlasd.engine.rollouts import Rollouts
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.drafting import LIBRARY
from bench.holes import Hole, bodies, copy_repository, hole_in, take_out
from bench.report import spread, table

ROOT = Path(__file__).resolve().parents[1]
PROMPT, SUFFIX = 768, 192
LOOP, TIMES = 24, 3
TOGETHER = 16
"""Requests whose time is taken together where there are several streams: a slot for each prompt."""


@dataclass
class Compared:
    """Requests of one workload, both ways."""

    name: str
    ms: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})
    ratios: list[float] = field(default_factory=list)
    tokens: int = 0
    steps: int = 0
    rows: int = 0
    draft_ms: float = 0.0
    wasted_ms: float = 0.0
    looped: int = 0
    different: int = 0

    def row(self) -> list[object]:
        """Of the table."""
        plain = max(1e-9, self.ms[False])
        return [
            self.name,
            f"{plain / max(1e-9, self.ms[True]):.2f}; {spread(self.ratios or [0.0])}",
            f"{1e3 * self.tokens / max(1e-9, self.ms[True]):.0f} / {1e3 * self.tokens / plain:.0f}",
            f"{self.tokens / max(1, self.steps):.2f}",
            f"{self.rows / max(1, self.steps):.1f}",
            f"{100 * self.draft_ms / plain:.1f} %",
            f"{100 * self.wasted_ms / plain:.1f} %",
            f"{len(self.ratios)} ({self.looped})",
            self.different,
        ]


def loops(tokens: Sequence[int]) -> bool:
    """Whether a text ends by saying the same few tokens again and again."""
    return any(
        len(tokens) >= size * TIMES
        and all(tokens[-1 - at] == tokens[-1 - at - size] for at in range(size * (TIMES - 1)))
        for size in range(1, LOOP + 1)
    )


class Bench:
    """A target with its drafters, asked both ways."""

    def __init__(self, rollouts: Rollouts, ends: Sequence[int], tokens: int, threads: int) -> None:
        self.rollouts, self.ends, self.tokens = rollouts, ends, tokens
        self.now = thread_time if threads == 1 else perf_counter
        self.turn = 0

    def _decode(
        self, prompts: Sequence[list[int]], sampling: Sampling, drafting: bool, streams: int = 1
    ) -> tuple[list[Output], float]:
        """What came, and the milliseconds that it took."""
        began = self.now()
        outputs = self.rollouts.sample(
            prompts,
            max_tokens=self.tokens,
            sampling=sampling,
            stop_tokens=self.ends,
            drafting=drafting,
            learn=drafting,
            at_once=streams,
        )
        return outputs, (self.now() - began) * 1e3

    def compare(
        self, name: str, prompts: Sequence[list[int]], temperature: float, streams: int
    ) -> Compared:
        """All requests of a workload, so many at a time, in alternating order."""
        done = Compared(name)
        for seed, group in self._groups(done, prompts, temperature, streams):
            sampling = Sampling(temperature=temperature, seed=seed)
            self.rollouts.sample(group, max_tokens=1, drafting=False, learn=False)
            self.turn += 1
            found: dict[bool, tuple[list[Output], float]] = {}
            for drafting in (True, False) if self.turn % 2 else (False, True):
                self.rollouts.drafting.text.positions.finish()
                found[drafting] = self._decode(group, sampling, drafting, streams)
            (on, on_ms), (off, off_ms) = found[True], found[False]
            done.different += sum(a.tokens != b.tokens for a, b in zip(on, off, strict=True))
            if streams == 1 and not self._counts(done, off[0]):
                continue
            done.ms[True] += on_ms
            done.ms[False] += off_ms
            done.ratios.append(off_ms / max(1e-9, on_ms))
            for prompt, output in zip(group, on, strict=True):
                self._count(done, len(prompt) + self.tokens, output)
        return done

    def _groups(
        self, done: Compared, prompts: Sequence[list[int]], temperature: float, streams: int
    ) -> Iterator[tuple[int, list[list[int]]]]:
        """Prompts whose requests are timed together, and their seed; of several streams only those
        that do not loop by themselves."""
        group: list[list[int]] = []
        for number, prompt in enumerate(prompts):
            if streams > 1:
                sampling = Sampling(temperature=temperature, seed=number)
                if not self._counts(done, self._decode([prompt], sampling, False)[0][0]):
                    continue
            group.append(prompt)
            if len(group) == (TOGETHER if streams > 1 else 1):
                yield number, group
                group = []
        if len(group) >= streams:
            yield len(prompts), group

    def _counts(self, done: Compared, plain: Output) -> bool:
        """Whether a text is long enough and free of loops."""
        done.looped += len(plain.tokens) >= 4 and loops(plain.tokens)
        return len(plain.tokens) >= 4 and not loops(plain.tokens)

    def _count(self, done: Compared, length: int, output: Output) -> None:
        stats, costs = output.stats, self.rollouts.engine.costs
        done.tokens += len(output.tokens)
        done.steps += stats.steps
        done.rows += stats.rows
        done.draft_ms += stats.draft_ms
        drafted, accepted = sum(stats.drafted.values()), sum(stats.accepted.values())
        average = max(1, round(stats.rows / max(1, stats.steps)))
        beyond = max(0.0, costs.ms(average, length) - costs.ms(1, length))
        done.wasted_ms += stats.steps * beyond * (drafted - accepted) / max(1, drafted)


def prompt_of(template: Template, tokenizer: Tokenizer, hole: Hole) -> list[int]:
    """A hole in the model's own format."""
    before = tokenizer.decode(tokenizer.encode(hole.before)[-PROMPT:])
    after = tokenizer.decode(tokenizer.encode(hole.after)[:SUFFIX])
    language = language_of(None, str(hole.path))
    return template.prompt(Surroundings(before, after, language)).tokens


def library_holes(count: int) -> list[Hole]:
    """Function bodies of the standard library."""
    import os

    root = Path(os.__file__).parent
    found: list[Hole] = []
    for name in LIBRARY:
        path = root / f"{name}.py"
        places = bodies(path.read_text())
        found += [hole_in(path, *place) for place in places[:: max(1, len(places) // 4)]]
    return found[:count]


def chat_prompts(tokenizer: Tokenizer, holes: Sequence[Hole]) -> list[list[int]]:
    """Questions about the same code."""
    template = ChatTemplate(tokenizer.chat_template)
    asked = ("Explain what this code does.", "Write a test for this code.", "Add a docstring.")
    prompts = []
    for number, hole in enumerate(holes):
        code = f"```python\n{hole.before[-800:]}{hole.wanted}\n```"
        message = {"role": "user", "content": f"{asked[number % 3]}\n\n{code}"}
        prompts.append(template.tokens(tokenizer, [message]))
    return prompts


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("repository", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--sites", type=int, default=16, help="requests per workload")
    parser.add_argument("--tokens", type=int, default=64, help="at most, per request")
    parser.add_argument("--temperatures", default="0,0.8", help="1.6: nothing is accepted")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--streams", default="1", help="requests at once, such as 1,2,4,8")
    parser.add_argument("--one-by-one", action="store_true", help="every step a call of its own")
    parser.add_argument("--model")
    options = parser.parse_args()
    files_of_model = find_model(options.model, paths())
    tokenizer = Tokenizer.load(files_of_model)
    template = template_for(tokenizer, declared_orders(files_of_model.config))
    unseen = library_holes(options.sites)
    rows: list[list[object]] = []
    with tempfile.TemporaryDirectory() as folder:
        files = copy_repository(options.repository, Path(folder))
        holes = take_out(files, options.sites, seed=1)
        works = {
            "held-out bodies": [prompt_of(template, tokenizer, hole) for hole in unseen],
            "chat": chat_prompts(tokenizer, unseen),
            "repository": [prompt_of(template, tokenizer, hole) for hole in holes],
        }
        texts = [(str(path), tokenizer.encode(path.read_text())) for path in files]
    temperatures = [float(one) for one in options.temperatures.split(",")]
    several = [int(one) for one in options.streams.split(",")]
    for streams, temperature in product(several, temperatures):
        with Rollouts(options.model, slots=TOGETHER, threads=options.threads) as rollouts:
            if options.one_by_one:
                rollouts.engine.one_by_one()
            rollouts.sample([list(range(300, 400))], max_tokens=options.tokens)
            bench = Bench(rollouts, tokenizer.eos_ids, options.tokens, options.threads)
            for name, prompts in works.items():
                if name == "repository":
                    for path, tokens in texts:
                        array = np.array(tokens, np.int32)
                        rollouts.drafting.add_segment(path, "rollouts", "file", array, "python")
                kind = "greedy" if temperature == 0 else f"temperature {temperature}"
                kind += f", {streams} streams" * (streams > 1)
                gc.collect()
                gc.freeze()  # as the engine does: collecting what was loaded takes 30 plain steps
                done = bench.compare(f"{name}, {kind}", prompts, temperature, streams)
                rows.append(done.row())
    header = ["workload", "drafting over plain: in all; by request", "tokens/s on / off"]
    header += [
        "tokens a step",
        "rows a step",
        "drafting",
        "wasted rows",
        "requests (loops left out)",
    ]
    header += ["texts that differ"]
    steps = "one by one" if options.one_by_one else "several in a call"
    title = f"Live (`python -m bench.live`), threads: {options.threads}, steps {steps}"
    print(table(title, header, rows))


if __name__ == "__main__":
    main()
