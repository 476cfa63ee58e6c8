"""Drafting must not change a token: random requests with drafting on and off, per weight format.

    python -m bench.identity [--cases 500] [--formats fp32,bf16,int8,int4] [--model NAME] [--seed 0]

A case is one to eight streams over prompts cut from this repository, with random sampling, some
held to a constraint (JSON schema, regex, tool calls), some with a prediction, decoded together
with drafting and each alone without, whichever comes first. Drafts come from all of the product's
drafters, cold or warm from the cases before (files, idle learning, an adapter of noise among
them), and from an oracle that proposes what was decoded, corrupted at random, so that drafts of
every length are accepted and rejected. Exit 1 if any text differs.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from atlasd.draft.constraint import Constraint
from atlasd.draft.cut import Others
from atlasd.draft.drafter import EMPTY, Draft, StreamView
from atlasd.draft.neural import Neural
from atlasd.draft.plan import Plan, StepRecord
from atlasd.draft.planner_ahead import Prepared
from atlasd.draft.registry import Drafting
from atlasd.draft.static import load_static
from atlasd.engine.assembly import drafting_for
from atlasd.engine.calibration import Calibrations
from atlasd.engine.compiling import read_tokenizer
from atlasd.engine.framing import pack_tokens
from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.loading import load
from atlasd.engine.native import fastest_choose
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Load
from atlasd.engine.steps import Engine
from atlasd.learn.adapter import Adapter
from atlasd.learn.learner import Learner
from atlasd.models.load import WeightFormat
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.identity_cases import MOST_STREAMS, Case, Cases
from bench.report import table

ROOT = Path(__file__).resolve().parents[1]
REPOSITORY = "/r"


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
        self.took, self.all_took = self._own.took, self._own.all_took

    def prepare(
        self, streams: Sequence[StreamView], room: int, limits: Sequence[int], others: Others
    ) -> Prepared | None:
        """Steps that are taken together draft what the product does, now and then."""
        if self._random.random() < 0.5:
            return None
        return self._own.prepare(streams, room, limits, others)

    def plan(
        self, streams: Sequence[StreamView], room: int, limits: Sequence[int], others: Others
    ) -> Plan:
        if self._random.random() < 0.5:
            return self._own.plan(streams, room, limits, others)
        drafts = []
        for index, stream in enumerate(streams):
            drafts.append(self._draft(stream, min(room, limits[index])))
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


class Tried(Neural):
    """The static drafter, asked at random instead of where it pays: here it is to be compared."""

    draw: random.Random

    def terms(self, stream: StreamView, first: bool, tokens_per_ms: float) -> tuple[float, float]:
        """Worth it once in a while."""
        return (float("inf") if self.draw.random() < 0.2 else -1.0), 0.0

    def aim(self, reach: float, tokens_per_ms: float) -> None:
        """Chains of any length."""
        self.least = 0.05


@dataclass
class Tally:
    """What was compared in one weight format."""

    cases: int = 0
    streams: int = 0
    tokens: int = 0
    accepted: Counter[str] = field(default_factory=Counter)
    drafted: Counter[str] = field(default_factory=Counter)
    constrained: int = 0
    predicted: int = 0
    different: int = 0


class Trial:
    """One model in one weight format, with all that drafts for it in the product."""

    def __init__(self, model: str | None, weight_format: WeightFormat, seed: int) -> None:
        self.random = draw = random.Random(seed)
        self._home = TemporaryDirectory(prefix="atlasd-identity-")
        self.folders = paths({"ATLASD_HOME": self._home.name})
        loading = Load(model, weight_format, slots=MOST_STREAMS + 1, slot_tokens=512, threads=1)
        self.served = served = load(loading, Calibrations(), self.folders, lambda *_: None)
        self.outputs = Outputs()
        self.engine = Engine(served.loaded.decoder, self.outputs.take, choose=fastest_choose())
        files, slots = served.files, served.loaded.decoder.slots
        neural = load_static(files, served.fingerprint, self.folders, slots=slots, threads=1)
        assert neural is not None
        self.tried = Tried(neural.model)
        self.tried.draw = draw
        self.truth: dict[int, list[int]] = {}
        self.drafting = self._fresh()
        tokenizer = Tokenizer.load(files)
        sources = sorted((ROOT / "atlasd").rglob("*.py"))
        draw.shuffle(sources)
        texts = [tokenizer.encode(path.read_text()) for path in sources[:24]]
        self.texts = [ids for ids in texts if len(ids) > 64]
        vocabulary = read_tokenizer(files, served.loaded.decoder.vocab_size)
        self.cases = Cases(self.texts, lambda grammar: Constraint(vocabulary, grammar), draw)
        self.ends = list(tokenizer.eos_ids)
        self.tally = Tally()
        self._number = 0

    def _fresh(self) -> Drafting:
        """Drafters that know nothing, and a controller that corrupts."""
        drafting = drafting_for(self.served, self.engine, self.folders, self.tried, FreeRows())
        drafting.expect_constraints()
        # its name and signature are Controller's, which is all that Planning asks for
        controller = Corrupting(drafting, self.truth, self.random)
        self.planning = Planning(controller)  # type: ignore[arg-type]
        return drafting

    def case(self) -> None:
        """A few requests, together with drafting and each alone without, in any order."""
        draw, requests = self.random, self.cases.together()
        self._disturb()
        first = draw.random() < 0.3
        together = self._decode(requests, drafting=True) if first else []
        alone = self._decode(requests, drafting=False)
        if not first:
            together = self._decode(requests, drafting=True, truth=alone)
        self.tally.cases += 1
        self.tally.streams += len(requests)
        self.tally.tokens += sum(map(len, alone))
        self.tally.constrained += sum(case.constraint is not None for case in requests)
        self.tally.predicted += sum(bool(case.prediction) for case in requests)
        self.tally.different += sum(a != b for a, b in zip(alone, together, strict=True))

    def _disturb(self) -> None:
        """Now and then: begin cold, know a file, learn in idle time, use an adapter of noise."""
        draw, drafting = self.random, self.drafting
        if draw.random() < 0.05:
            self.engine.set_planning(None)
            self.drafting = drafting = self._fresh()
        if draw.random() < 0.2:
            text = np.array(draw.choice(self.texts), np.int32)
            drafting.add_segment(f"{draw.randrange(9)}.py", REPOSITORY, "file", text, "python")
        if draw.random() < 0.2:
            drafting.idle(20.0)
        if draw.random() < 0.2 and isinstance(drafting.learning, Learner):
            model = drafting.learning.model
            head = np.arange(model.vocab_size, dtype=np.int32) if model.head is None else model.head
            adapter = Adapter.fresh(head, model.hidden, model.vocab_size, draw.randrange(99))
            noise = np.random.default_rng(draw.randrange(99))
            for array in (adapter.up, adapter.last, adapter.before, adapter.bias):
                array[:] = 0.05 * noise.standard_normal(array.shape)
            drafting.learning.repositories.of(REPOSITORY).versions.promote(adapter, 0.1)

    def _decode(
        self, requests: list[Case], *, drafting: bool, truth: Sequence[list[int]] = ()
    ) -> list[list[int]]:
        """What each says; without drafting each is decoded alone."""
        self.engine.set_planning(self.planning if drafting else None)
        numbers = []
        for index, case in enumerate(requests):
            self._number += 1
            numbers.append(self._number)
            if truth:
                self.truth[self._number] = truth[index]
            submit = request(
                self._number,
                case.prompt,
                max_tokens=case.count,
                sampling=case.sampling,
                stop_tokens=self.ends,
            )
            submit.prediction = pack_tokens(case.prediction)
            submit.learn, submit.repository, submit.language = case.learn, REPOSITORY, "python"
            held = case.constraint
            self.engine.submit(submit, None if held is None else held.copy())
            if not drafting:
                run(self.engine)
        run(self.engine)
        found = [self.outputs.pop(number) for number in numbers]
        for output in found:
            assert output.reason in ("length", "stop"), output.message
            self.tally.drafted.update(output.stats.drafted)
            self.tally.accepted.update(output.stats.accepted)
        self.truth.clear()
        return [output.tokens for output in found]

    def close(self) -> None:
        """Free the model."""
        self.served.loaded.decoder.close()
        self._home.cleanup()


def measure(
    model: str | None, formats: Sequence[WeightFormat], cases: int, seed: int = 0
) -> dict[WeightFormat, Tally]:
    """So many random cases per format, with progress."""
    found: dict[WeightFormat, Tally] = {}
    for weight_format in formats:
        trial = Trial(model, weight_format, seed)
        began = time.monotonic()
        for done in range(1, cases + 1):
            trial.case()
            took = time.monotonic() - began
            line = f"\r{weight_format}: {done} of {cases} cases, {trial.tally.different} differ"
            print(f"{line}, {took:.0f} s", end="", file=sys.stderr, flush=True)
        print(file=sys.stderr)
        found[weight_format] = trial.tally
        trial.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--formats", default="fp32,bf16,int8,int4")
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    found = measure(options.model, options.formats.split(","), options.cases, options.seed)
    rows = [
        [
            *(name, t.cases, t.streams, t.constrained, t.predicted, t.tokens),
            ", ".join(f"{source} {t.accepted[source]} of {n}" for source, n in t.drafted.items()),
            t.different,
        ]
        for name, t in found.items()
    ]
    header = ["weights", "cases", "streams", "constrained", "with a prediction", "tokens"]
    header += ["drafted and right", "differ"]
    print(table("Drafting on and off", header, rows))
    return int(any(t.different for t in found.values()))


if __name__ == "__main__":
    sys.exit(main())
