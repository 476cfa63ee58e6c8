"""Drafting must not change a token: random requests with drafting on and off, per weight format.

    python -m bench.identity [--cases 500] [--formats fp32,bf16,int8,int4] [--model NAME] [--seed 0]

A case is one to four streams over prompts cut from this repository, in random order and with
random sampling, decoded together with drafting and then each alone without. Drafts come from the
product's own drafters and from an oracle that proposes what was decoded, corrupted at random, so
that drafts of every length are accepted and rejected. Exit 1 if any text differs.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlasd.draft.drafter import EMPTY, Draft, StreamView
from atlasd.draft.plan import Plan, StepRecord
from atlasd.draft.registry import Drafting
from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.native import fastest_choose
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Sampling
from atlasd.engine.steps import Engine
from atlasd.models.load import LoadOptions, WeightFormat, load_decoder
from atlasd.models.locate import ModelFiles, find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.report import table

ROOT = Path(__file__).resolve().parents[1]
SAMPLINGS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"temperature": 0.8},
    {"temperature": 1.0, "top_p": 0.9, "top_k": 50},
    {"temperature": 0.7, "repetition_penalty": 1.2},
    {"presence_penalty": 0.5, "frequency_penalty": 0.2},
)


class FreeRows:
    """Step costs with which every draft pays, so that there is a lot to compare."""

    def ms(self, rows: int, kv_tokens: int) -> float:
        return 1.0 + 0.001 * rows

    def bucket(self, rows: int) -> int:
        return rows


class Corrupting:
    """A controller that drafts the truth for some steps, corrupted, and leaves others to the
    product's own."""

    def __init__(self, drafting: Drafting, truth: dict[int, list[int]], draw: random.Random):
        self._own, self._truth, self._random = drafting.controller, truth, draw
        self._vocabulary = drafting.vocab_size
        self.begin, self.end = self._own.begin, self._own.end
        self.settle = self._own.settle

    def plan(
        self, streams: Sequence[StreamView], room: int, limits: Sequence[int] | None = None
    ) -> Plan:
        if self._random.random() < 0.5:
            return self._own.plan(streams, room, limits)
        drafts = []
        for index, stream in enumerate(streams):
            limit = min(room, limits[index] if limits is not None else room)
            drafts.append(self._draft(stream, limit))
            room -= len(drafts[-1].tokens)
        counts = [len(draft.tokens) for draft in drafts]
        return Plan(drafts, StepRecord([s.stream for s in streams], [], [], counts, []))

    def _draft(self, stream: StreamView, limit: int) -> Draft:
        done = len(stream.tokens) - stream.prompt_length
        longest = self._random.randint(0, min(20, max(limit, 0)))
        tokens = self._truth.get(stream.stream, [])[done : done + longest]
        if tokens and self._random.random() < 0.7:
            at = self._random.randrange(len(tokens))
            tokens[at] = self._random.randrange(self._vocabulary)
        return Draft("oracle", tokens) if tokens else EMPTY


@dataclass
class Tally:
    """What was compared in one weight format."""

    cases: int = 0
    streams: int = 0
    tokens: int = 0
    accepted: int = 0
    rejected: int = 0
    different: int = 0


class Trial:
    """One model in one weight format."""

    def __init__(self, files: ModelFiles, weight_format: WeightFormat, seed: int) -> None:
        self.random = random.Random(seed)
        options = LoadOptions(
            weight_format=weight_format, slots=5, slot_tokens=512, threads=1, device="cpu"
        )
        self.decoder = load_decoder(files, options).decoder
        tokenizer = Tokenizer.load(files)
        sources = sorted((ROOT / "atlasd").rglob("*.py"))
        self.random.shuffle(sources)
        self.texts = [tokenizer.encode(path.read_text()) for path in sources[:24]]
        self.texts = [ids for ids in self.texts if len(ids) > 64]
        self.drafting = Drafting(
            vocab_size=self.decoder.vocab_size, fingerprint="identity", costs=FreeRows()
        )
        self.truth: dict[int, list[int]] = {}
        # its name and signature are Controller's, which is all that Planning asks for
        controller = Corrupting(self.drafting, self.truth, self.random)
        self.outputs = Outputs()
        self.engine = Engine(self.decoder, self.outputs.take, choose=fastest_choose())
        self.planning = Planning(controller)  # type: ignore[arg-type]
        self.tally = Tally()
        self._number = 0

    def case(self) -> None:
        draw, requests = self.random, []
        for _ in range(draw.randint(1, 4)):
            text = draw.choice(self.texts)
            at, length = draw.randrange(len(text) - 32), draw.randint(2, 200)
            sampling = Sampling(seed=draw.randrange(2**32), **draw.choice(SAMPLINGS))
            requests.append((text[at : at + length], draw.randint(4, 40), sampling))
        alone = self._decode(requests, together=False, drafting=False)
        together = self._decode(requests, together=True, drafting=True, truth=alone)
        self.tally.cases += 1
        self.tally.streams += len(requests)
        self.tally.tokens += sum(map(len, alone))
        self.tally.different += sum(a != b for a, b in zip(alone, together, strict=True))

    def _decode(
        self,
        requests: list[tuple[list[int], int, Sampling]],
        *,
        together: bool,
        drafting: bool,
        truth: list[list[int]] | None = None,
    ) -> list[list[int]]:
        self.engine.set_planning(self.planning if drafting else None)
        numbers = []
        for index, (prompt, count, sampling) in enumerate(requests):
            self._number += 1
            numbers.append(self._number)
            if truth is not None:
                self.truth[self._number] = truth[index]
            self.engine.submit(request(self._number, prompt, max_tokens=count, sampling=sampling))
            if not together:
                run(self.engine)
        run(self.engine)
        found = [self.outputs.pop(number) for number in numbers]
        for output in found:
            assert output.reason == "length", output.message
            accepted = sum(output.stats.accepted.values())
            self.tally.accepted += accepted
            self.tally.rejected += sum(output.stats.drafted.values()) - accepted
        self.truth.clear()
        return [output.tokens for output in found]


def measure(
    files: ModelFiles, formats: Sequence[WeightFormat], cases: int, seed: int = 0
) -> dict[WeightFormat, Tally]:
    """So many random cases per format, with progress."""
    found: dict[WeightFormat, Tally] = {}
    for weight_format in formats:
        trial = Trial(files, weight_format, seed)
        began = time.monotonic()
        for done in range(1, cases + 1):
            trial.case()
            took = time.monotonic() - began
            line = f"\r{weight_format}: {done} of {cases} cases, {trial.tally.different} differ"
            print(f"{line}, {took:.0f} s", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        found[weight_format] = trial.tally
        trial.decoder.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--formats", default="fp32,bf16,int8,int4")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    files = find_model(options.model, paths())
    found = measure(files, options.formats.split(","), options.cases, options.seed)
    rows = [
        [name, t.cases, t.streams, t.tokens, t.accepted, t.rejected, t.different]
        for name, t in found.items()
    ]
    header = ["weights", "cases", "streams", "tokens", "drafted and right", "and wrong", "differ"]
    print(table("Drafting on and off", header, rows))
    return int(any(t.different for t in found.values()))


if __name__ == "__main__":
    sys.exit(main())
