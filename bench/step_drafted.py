"""Where the processor time of drafted steps goes: the engine alone, without daemon or sockets.

    python -m bench.step_drafted [--model FOLDER] [--sites 12] [--tokens 64] [--temperature 0]
        [--format auto] [--profile]

Cursors in this repository's own files are completed with drafting off and on; the repository is
in the index. Times are processor time of the step loop's thread, so that a busy machine does not
count. The tokens must be the same.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from time import thread_time
from typing import Any

import numpy as np

from atlasd.draft.registry import Drafting
from atlasd.draft.static import static_or_none
from atlasd.engine.clock import StepClock
from atlasd.engine.costs import StepCosts
from atlasd.engine.framing import pack_tokens
from atlasd.engine.measure import measure_costs
from atlasd.engine.native import fastest_choose
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Finished, Priority, Sampling, Submit, Tokens
from atlasd.engine.sampling import Sampler
from atlasd.engine.steps import Engine
from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.report import table

ROOT = Path(__file__).resolve().parents[1]
STEP = ("plan", "neural", "forward", "choose", "learn", "rest")
REQUEST = ("submit", "begin", "prefill", "end")


class Meter:
    """Processor seconds by part; what a part calls that is metered itself is not counted twice."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner = [0.0]

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._inner.append(0.0)
            began = thread_time()
            try:
                return function(*arguments, **named)
            finally:
                spent = thread_time() - began
                self.seconds[part] += spent - self._inner.pop()
                self._inner[-1] += spent
                self.calls[part] += 1

        return call

    def wrap(self, owner: Any, name: str, part: str) -> None:
        setattr(owner, name, self.timed(part, getattr(owner, name)))


class Bench:
    """A model, the repository in the index, and an engine with everything metered."""

    def __init__(self, model: str | None, weight_format: Any) -> None:
        self.meter = Meter()
        folders, files = paths(), find_model(model, paths())
        self.tokenizer = Tokenizer.load(files)
        options = LoadOptions(slots=4, slot_tokens=2048, threads=1, weight_format=weight_format)
        loaded = load_decoder(files, options)
        self.decoder = loaded.decoder
        self.costs = StepCosts(self.decoder.bucket)
        clock = StepClock()
        measure_costs(self.decoder, self.costs, 2.0, clock=clock)
        neural = static_or_none(files, self.tokenizer.fingerprint, folders, slots=4)
        self.drafting = Drafting(
            vocab_size=self.decoder.vocab_size,
            fingerprint=self.tokenizer.fingerprint,
            line_ends=self.tokenizer.line_ends,
            costs=self.costs,
            neural=neural,
        )
        self.files = sorted((ROOT / "atlasd").rglob("*.py"))
        for path in self.files:
            tokens = np.array(self.tokenizer.encode(path.read_text()), np.int32)
            self.drafting.add_segment(str(path), "r", "file", tokens, "python")
        self.planning = Planning(self.drafting.controller, self.costs, clock)
        self.messages: list[Tokens | Finished] = []
        self.engine = Engine(
            self.decoder,
            self.messages.append,
            costs=self.costs,
            choose=fastest_choose(),
            clock=clock,
        )
        meter, controller = self.meter, self.drafting.controller
        decode = meter.timed("forward", self.decoder.forward)
        prefill = meter.timed("prefill", self.decoder.forward)

        def forward(*rows: Any, prefill_call: bool = False) -> Any:
            return (prefill if prefill_call else decode)(*rows)

        call = lambda *rows, prefill=False: forward(*rows, prefill_call=prefill)  # noqa: E731
        setattr(self.decoder, "forward", call)  # noqa: B010
        for name, part in (("begin", "begin"), ("plan", "plan"), ("settle", "learn")):
            meter.wrap(controller, name, part)
        meter.wrap(controller, "end", "end")
        if neural is not None:
            for name in ("gain", "propose", "observe", "begin", "end"):
                meter.wrap(neural, name, "neural")
        meter.wrap(Sampler, "match", "choose")
        meter.wrap(self.engine, "submit", "submit")
        meter.wrap(self.engine, "step", "rest")

    def sites(self, count: int) -> list[list[int]]:
        """Prompts that end inside a file: up to 600 tokens before a line's end."""
        found = []
        for path in self.files[:: max(1, len(self.files) // count)][:count]:
            lines = path.read_text().splitlines(keepends=True)
            ids = self.tokenizer.encode("".join(lines[: 2 * len(lines) // 3]))
            found.append(ids[-600:])
        return [ids for ids in found if ids]

    def complete(self, number: int, prompt: list[int], tokens: int, temperature: float) -> Any:
        """(output tokens, stats) of one request, stepped to its end."""
        self.engine.submit(
            Submit(
                stream=number,
                tokens=pack_tokens(prompt),
                max_tokens=tokens,
                sampling=Sampling(temperature=temperature, seed=3),
                priority=Priority.COMPLETION,
                repository="r",
                language="python",
            )
        )
        while self.engine.step():
            pass
        output: list[int] = []
        for message in self.messages:
            if isinstance(message, Tokens):
                output += np.frombuffer(message.tokens, "<i4").tolist()
        finished = self.messages[-1]
        assert isinstance(finished, Finished), finished
        self.messages.clear()
        return output, finished.stats


def measure(bench: Bench, options: argparse.Namespace) -> str:
    rows: list[list[object]] = []
    texts: dict[bool, list[list[int]]] = {}
    rates: dict[bool, float] = {}
    for on in (False, True):
        bench.engine.set_planning(bench.planning if on else None)
        for warm in (True, False):
            bench.meter.seconds.clear()
            bench.meter.calls.clear()
            count = steps = stepped_rows = 0
            texts[on] = []
            for number, prompt in enumerate(bench.sites(options.sites)):
                output, stats = bench.complete(
                    number + 1000 * on + 100 * warm, prompt, options.tokens, options.temperature
                )
                texts[on].append(output)
                count += len(output)
                steps += stats.steps
                stepped_rows += stats.rows
        spent = bench.meter.seconds
        per = [f"{spent[part] * 1e6 / steps:.0f}" for part in STEP]
        per += [f"{spent[part] * 1e6 / options.sites:.0f}" for part in REQUEST]
        rates[on] = sum(spent[part] for part in STEP) / count
        rows.append(
            [
                "on" if on else "off",
                f"{count / steps:.2f}",
                f"{stepped_rows / steps:.2f}",
                f"{rates[on] * 1e3:.3f}",
                *per,
            ]
        )
    different = sum(a != b for a, b in zip(texts[False], texts[True], strict=True))
    costs = ", ".join(f"{n} rows {bench.costs.ms(n, 600):.2f}" for n in (1, 2, 4, 8, 16))
    title = (
        f"Processor time of drafted steps: on over off {rates[False] / rates[True]:.2f}x;"
        f" {different} texts differ; a step in ms: {costs}"
    )
    header = ["drafting", "tokens a step", "rows a step", "ms a token"]
    header += [*(f"{part}, us a step" for part in STEP), *(f"{part}, us" for part in REQUEST)]
    return table(title, header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model")
    parser.add_argument("--format", default="auto")
    parser.add_argument("--sites", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--profile", action="store_true", help="also where Python spends it")
    options = parser.parse_args()
    bench = Bench(options.model, options.format)
    print(measure(bench, options))
    if options.profile:
        profile = cProfile.Profile(thread_time)
        profile.enable()
        measure(bench, options)
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main()
