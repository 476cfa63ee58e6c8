"""Workload drift in replay: Python, then Rust, then JSON tool calls, then Python again.

    python -m bench.drift [--rust FOLDER] [--requests 40] [--plots docs]

The recorded text is taken as what the target says, steps cost what the profile says, and the static
drafter is the bundled one, read teacher-forced (``bench.replay.static``) and paid per token. Four
systems see the same requests: the full one; the same with learning frozen at the first shift; the
static drafter alone; the adaptive drafters alone. A fifth, which never sees Rust and tool calls,
says what the last phase would have been without the detour.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from atlasd.draft.controller import Controller
from atlasd.draft.mixture import Mixture
from atlasd.draft.neural import Neural
from atlasd.draft.registry import Drafting
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.replay import workload
from bench.replay.costs import COSTS, TableCosts
from bench.replay.filling import Fill, fill_for
from bench.replay.releases import fetch
from bench.replay.run import Outcome, run_drafting
from bench.replay.static import Static, bundled_static, priced_neural
from bench.replay.workload import Workload
from bench.report import table
from bench.svg import Plot, smooth

ROOT = Path(__file__).resolve().parents[1]
RUST = ROOT / "training" / "work" / "corpus" / "held_out-rust.jsonl"
PYTHON = "rich==13.6.0,13.7.0,13.8.0,13.9.2"
TOOLS = "sqlite-utils==3.34,3.35,3.36,3.37"
EARLY = 20
"""Requests after a shift within which the full system must be ahead."""

STATIC_MS = {"gpu": 1.2, "cpu": 0.35}
"""Of the static drafter per token: a tenth of a GPU step; as measured on two CPU cores."""


@dataclass
class System:
    """One of the systems that are compared, and what came of it, phase by phase."""

    name: str
    drafting: Drafting
    static: Static | None = None
    frozen_after: int = 99
    skips: tuple[int, ...] = ()
    phases: list[Outcome] = field(default_factory=list)

    def run(self, works: Sequence[Workload], costs: TableCosts) -> None:
        """All phases in turn."""
        for number, work in enumerate(works):
            if number in self.skips:
                self.phases.append(Outcome(work.name))
                continue
            learn = number <= self.frozen_after
            self.phases.append(
                run_drafting(work, self.drafting, costs, static=self.static, learn=learn)
            )


def systems(tokenizer: Tokenizer, costs: TableCosts) -> list[System]:
    """The full system, frozen, static alone, adaptive alone, and without the detour."""

    def drafting(neural: Neural | None) -> Drafting:
        return Drafting(
            vocab_size=tokenizer.vocab_size,
            fingerprint=tokenizer.fingerprint,
            line_ends=tokenizer.line_ends,
            costs=costs,
            neural=neural,
        )

    def system(name: str, text: bool = True, static: bool = True, **more: object) -> System:
        shown = bundled_static(STATIC_MS[costs.name]) if static else None
        built = drafting(None if shown is None else priced_neural(shown.model))
        if not text:
            others = [d for d in built.drafters if not isinstance(d, Mixture)]
            built.controller = Controller(others, built.confidence, costs)
        return System(name, built, shown, **more)  # type: ignore[arg-type]

    return [
        system("full"),
        system("frozen at the shift", frozen_after=0),
        system("static alone", text=False),
        system("adaptive alone", static=False),
        system("without the detour", skips=(1, 2)),
    ]


def phases(
    encode: workload.Encode,
    fill: Fill,
    end: int,
    count: int,
    rust: Path | None,
    cache_folder: Path,
) -> list[Workload]:
    """The four workloads of the sequence; the last goes on where the first stopped."""
    name, versions = fetch(PYTHON, cache_folder)
    python = workload.releases(name, versions, encode, 2 * count, fill)
    half = len(python.requests) // 2
    _, agent = fetch(TOOLS, cache_folder)
    with tempfile.TemporaryDirectory() as folder:
        source = rust or _unpacked(RUST, Path(folder))
        written = workload.successive_files("rust", source, encode, count)
    works = [
        Workload("Python", python.requests[:half]),
        Workload("Rust", written.requests),
        Workload("tool calls", workload.tool_calls("agent", agent, encode, count).requests),
        Workload("Python again", python.requests[half:]),
    ]
    for work in works:
        work.end_with(end)
    return works


def _unpacked(corpus: Path, folder: Path) -> Path:
    if not corpus.is_file():
        raise SystemExit("Give --rust FOLDER with a Rust crate: the held-out one is not there.")
    for line in corpus.open():
        one = json.loads(line)
        if one["project"] == "rayon":
            path = folder / one["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(one["text"])
    return folder


def speed(outcome: Outcome, begin: int = 0, stop: int | None = None) -> float:
    """Plain time over time, over a range of requests, each weighing the same."""
    some = outcome.speedups[begin:stop]
    return sum(some) / max(1, len(some))


def rows_of(works: Sequence[Workload], found: Sequence[System]) -> list[list[object]]:
    """A row per phase and range of requests."""
    full, frozen, static, adaptive, straight = found
    rows: list[list[object]] = []
    for number, work in enumerate(works):
        count = len(work.requests)
        ranges = [(0, min(EARLY, count)), (min(EARLY, count), count)]
        if number == len(works) - 1:
            ranges.insert(0, (0, 2))
        for begin, stop in ranges:
            if stop <= begin:
                continue
            mine = speed(full.phases[number], begin, stop)
            others = [speed(one.phases[number], begin, stop) for one in (frozen, static, adaptive)]
            detour = speed(straight.phases[number], begin, stop)
            rows.append(
                [
                    work.name,
                    f"{begin + 1} to {stop}",
                    *(f"{value:.2f}" for value in (mine, *others)),
                    f"{mine / others[0]:.2f}",
                    f"{mine / others[1]:.2f}",
                    f"{100 * mine / detour:.0f} %" if detour else "",
                ]
            )
    return rows


def plot(works: Sequence[Workload], found: Sequence[System], folder: Path, profile: str) -> None:
    """Acceptance and lookahead over requests, and the waterfall of the first phase."""
    total = sum(len(work.requests) for work in works)
    shown = [one for one in found if not one.skips]
    kinds = (
        ("acceptance", "accepted tokens a step", 0),
        ("lookahead", "drafted tokens a step", 1),
    )
    for name, label, what in kinds:
        series = []
        for one in shown:
            requests = [r for outcome in one.phases for r in outcome.requests]
            values = [(t / s - 1, d / s)[what] for t, s, d in requests]
            series.append((one.name, smooth(values, 8)))
        top = max(y for _, points in series for _, y in points)
        drawn = Plot(f"Drift in replay, {profile} costs", "requests", label, total, top)
        for title, points in series:
            drawn.line(title, points)
        at = 0
        for work in works:
            drawn.mark(at, work.name)
            at += len(work.requests)
        drawn.save(folder / f"drift-{name}.svg")
    bars = [("plain", 1.0)]
    for one in (found[2], found[3], found[0]):
        plain = sum(outcome.plain_ms for outcome in one.phases)
        bars.append((one.name, plain / sum(outcome.target_ms for outcome in one.phases)))
    drawn = Plot(
        f"Speed over plain decoding, whole sequence, {profile} costs", "", "× plain", len(bars), 4
    )
    drawn.bars(bars)
    drawn.save(folder / "drift-waterfall.svg")


def main() -> None:
    """Print the table, write the plots."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rust", type=Path, help="a folder of Rust source")
    parser.add_argument("--requests", type=int, default=40, help="per phase")
    parser.add_argument("--costs", default="gpu", choices=sorted(STATIC_MS))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "atlasd-bench")
    parser.add_argument("--plots", type=Path, help="write SVG files to this folder")
    options = parser.parse_args()
    files = find_model(None, paths())
    tokenizer = Tokenizer.load(files)
    works = phases(
        cache(tokenizer.encode),
        fill_for(files, tokenizer),
        tokenizer.eos_ids[0],
        options.requests,
        options.rust,
        options.cache,
    )
    costs = COSTS[options.costs]
    found = systems(tokenizer, costs)
    for one in found:
        one.run(works, costs)
    title = f"Drift in replay (`python -m bench.drift --costs {costs.name}`), speed over plain"
    header = ["phase", "requests", *(one.name for one in found[:4])]
    header += ["full / frozen", "full / static", "of no detour"]
    print(table(title, header, rows_of(works, found)))
    if options.plots:
        plot(works, found, options.plots, costs.name)


if __name__ == "__main__":
    main()
