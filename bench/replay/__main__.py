"""Tokens per step and modelled speed-up over plain decoding on recorded text.

    python -m bench.replay                         releases of Python packages, fetched by pip
    python -m bench.replay --git PATH              the history of a git repository
    python -m bench.replay --package PATH          a folder of source, written file by file

Mode *replay*: the recorded text is taken as what the target says, and steps cost what a table says.
A request's text is followed by the end token, which no rule is told of in advance. The baselines
are written from their published descriptions and see the same files and requests.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from atlasd.draft.registry import Drafting
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.replay import baselines, routers, workload
from bench.replay.costs import COSTS, TableCosts
from bench.replay.filling import Fill, fill_for
from bench.replay.releases import DEFAULT, fetch
from bench.replay.run import Outcome, run_drafting, run_rule
from bench.replay.static import bundled_static, priced_neural
from bench.replay.workload import Workload

FIXED = (2, 4, 8, 15, 31)


def main() -> None:
    """Print a table per cost profile."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--git", type=Path, action="append", default=[])
    parser.add_argument("--package", type=Path, action="append", default=[])
    parser.add_argument("--releases", action="append", default=[], metavar="NAME==V1,V2,…")
    parser.add_argument(
        "--warm",
        action="append",
        default=[],
        metavar="NAME==V1,V2,…",
        help="releases that atlasd has drafted for before, which are not counted",
    )
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "atlasd-bench")
    parser.add_argument("--model", help="whose tokenizer; the bundled model's otherwise")
    parser.add_argument("--requests", type=int, default=100, help="per repository")
    parser.add_argument("--commits", type=int, default=200, help="of a git repository")
    parser.add_argument("--costs", nargs="*", default=["gpu"], choices=sorted(COSTS))
    parser.add_argument("--rewrites", action="store_true", help="whole-file rewrites instead")
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument(
        "--static-ms",
        type=float,
        help="with the bundled static drafter at this price of a token",
    )
    parser.add_argument("--json", type=Path, help="write the outcomes here as well")
    options = parser.parse_args()
    files = find_model(options.model, paths())
    tokenizer = Tokenizer.load(files)
    encode = cache(tokenizer.encode)
    console = Console()
    fill = fill_for(files, tokenizer)
    works = list(_workloads(options, encode, fill))
    before = [
        workload.releases(*fetch(wanted, options.cache), encode, options.requests, fill)
        for wanted in options.warm
    ]
    for work in before:
        work.end_with(tokenizer.eos_ids[0])
    for work in works:
        work.end_with(tokenizer.eos_ids[0])
        console.print(
            f"{work.name}: {len(work.requests)} requests, "
            f"{sum(len(r.text) for r in work.requests)} tokens"
        )
    results: list[dict[str, object]] = []
    for profile in options.costs:
        costs = COSTS[profile]
        outcomes = _compare(
            works, before, costs, tokenizer, not options.no_baselines, console, options.static_ms
        )
        console.print(_table(profile, outcomes))
        results += [{"costs": profile, **_plain(outcome)} for outcome in outcomes]
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


def _workloads(
    options: argparse.Namespace, encode: Callable[[str], list[int]], fill: Fill
) -> list[Workload]:
    build = workload.rewrites if options.rewrites else partial(workload.releases, fill=fill)
    found: list[Workload] = []
    for root in options.package:
        found.append(workload.successive_files(root.name, root, encode, options.requests))
    for root in options.git:
        versions = list(workload.git_versions(root, options.commits))
        found.append(build(root.resolve().name, versions, encode, options.requests))
    names = options.releases or ([] if found else DEFAULT)
    for wanted in names:
        name, versions = fetch(wanted, options.cache)
        found.append(build(name, versions, encode, options.requests))
    return found


def _compare(
    works: list[Workload],
    before: list[Workload],
    costs: TableCosts,
    tokenizer: Tokenizer,
    with_baselines: bool,
    console: Console,
    static_ms: float | None = None,
) -> list[Outcome]:
    totals: dict[str, Outcome] = {}
    static = None if static_ms is None else bundled_static(static_ms)
    drafting = Drafting(
        vocab_size=tokenizer.vocab_size,
        fingerprint=tokenizer.fingerprint,
        line_ends=tokenizer.line_ends,
        costs=costs,
        neural=None if static is None else priced_neural(static.model),
    )
    for work in before:
        run_drafting(work, drafting, costs, static=static)
    for work in works:
        with console.status(f"{work.name} under {costs.name}"):
            rules: list[baselines.Rule] = []
            if with_baselines:
                rules = [
                    baselines.Plain(),
                    baselines.PromptLookup(),
                    baselines.NgramMod(),
                    baselines.NgramMod(12, 1),
                    *(baselines.LastOccurrence(count) for count in FIXED),
                    baselines.TokenRecycling(),
                    baselines.SuffixTree(1.0),
                    baselines.SuffixTree(2.0),
                    baselines.SuffixTree(1.0, repository=False),
                    routers.MovingAverage(),
                    routers.NgramMapK(),
                ]
                if static is not None:
                    rules += [
                        *(routers.StaticAlone(static.model, count) for count in (2, 4, 8)),
                        routers.ArcticHybrid(static.model),
                        routers.HvdRouter(static.model),
                    ]
            outcomes = [run_rule(work, rule, costs, static=static) for rule in rules]
            fixed = [
                one for one in outcomes if one.name.startswith(("last occurrence,", "static,"))
            ]
            if fixed:
                best = max(fixed, key=lambda one: one.speedup)
                outcomes.append(replace(best, name="best fixed lookahead of each workload"))
            outcomes.append(run_drafting(work, drafting, costs, static=static))
        for outcome in outcomes:
            totals.setdefault(outcome.name, Outcome(outcome.name)).add(outcome)
    return list(totals.values())


def _table(profile: str, outcomes: list[Outcome]) -> Table:
    table = Table(
        *("rule", "tokens/step", "rows/step", "× plain", "× plain with own time"),
        *("own time, µs a step: median", "mean"),
        title=f"replay, step costs: {profile}",
    )
    for outcome in outcomes:
        own = np.array(outcome.drafting_ms) * 1e3
        table.add_row(
            outcome.name,
            f"{outcome.per_step:.2f}",
            f"{outcome.rows / max(1, outcome.steps):.1f}",
            f"{outcome.speedup:.3f}",
            f"{outcome.speedup_with_drafting:.3f}" if len(own) else "",
            f"{np.median(own):.0f}" if len(own) else "",
            f"{own.mean():.0f}" if len(own) else "",
        )
    return table


def _plain(outcome: Outcome) -> dict[str, object]:
    own = float(np.median(outcome.drafting_ms)) if outcome.drafting_ms else math.nan
    return {
        "rule": outcome.name,
        "tokens": outcome.tokens,
        "steps": outcome.steps,
        "rows": outcome.rows,
        "speedup": outcome.speedup,
        "speedup_with_drafting": outcome.speedup_with_drafting,
        "own_ms_median": own,
        "accepted": dict(outcome.accepted),
    }


if __name__ == "__main__":
    main()
