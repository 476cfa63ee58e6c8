"""Calibration of confidence on streams it has not seen: predict, then learn.

    python -m bench.calibration [--predictions 20000] [--plots docs]

Releases of packages are replayed as in ``bench.replay``, the bundled static drafter being asked at
every step. Every token that any source proposed is a prediction,
made before its outcome was learned from; the log loss is held against that of the source's own
running mean. Expected calibration error is over 20 bins of equal mass.
"""

from __future__ import annotations

import argparse
from functools import cache
from math import log
from pathlib import Path

import numpy as np
import numpy.typing as npt

import atlasd.draft.registry as registry
from atlasd.draft.registry import Drafting
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.replay import workload
from bench.replay.costs import COSTS
from bench.replay.filling import fill_for
from bench.replay.releases import DEFAULT, fetch
from bench.replay.run import run_drafting
from bench.replay.static import bundled_static, priced_neural
from bench.report import table
from bench.svg import Plot

BINS = 20
MORE = [
    "httpx==0.24.1,0.25.2,0.27.0,0.28.1",
    "flask==2.2.5,2.3.3,3.0.3,3.1.0",
    "attrs==22.2.0,23.1.0,24.2.0,25.1.0",
]
"""Where the usual releases hold too little text."""
Journal = list[tuple[str, float, bool]]
Float = npt.NDArray[np.float64]


def main() -> None:
    """Print a row per source, write the curve."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--predictions", type=int, default=20_000, help="at least, per source")
    parser.add_argument("--releases", action="append", default=[], metavar="NAME==V1,V2,…")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "atlasd-bench")
    parser.add_argument("--plots", type=Path, help="write calibration.svg to this folder")
    options = parser.parse_args()
    journal = predictions(options)
    rows: list[list[object]] = []
    curve = Plot("Calibration of confidence", "predicted", "held", 1.0, 1.0)
    curve.line("perfect", [(0.0, 0.0), (1.0, 1.0)])
    for source in sorted({name for name, _, _ in journal}):
        made = np.array([(p, held) for name, p, held in journal if name == source], np.float64)
        error, points = calibration(made)
        loss, running = losses(made)
        below = f"{100 * (1 - loss / running):.0f} %"
        rows.append([source, len(made), f"{error:.3f}", f"{loss:.3f}", f"{running:.3f}", below])
        curve.line(source, points)
    header = ["source", "predictions", "calibration error (0.05)", "log loss"]
    header += ["of the running mean", "below it (10 %)"]
    print(table("Calibration (`python -m bench.calibration`)", header, rows))
    if options.plots:
        curve.save(options.plots / "calibration.svg")


def predictions(options: argparse.Namespace) -> Journal:
    """Replay until every source made enough of them, or there is no text left."""
    vars(registry)["text_library"] = lambda: None  # the same arithmetic, with a journal
    files = find_model(None, paths())
    tokenizer = Tokenizer.load(files)
    encode = cache(tokenizer.encode)
    costs = COSTS["gpu"]
    static = bundled_static(0.3)
    drafting = Drafting(
        vocab_size=tokenizer.vocab_size,
        fingerprint=tokenizer.fingerprint,
        line_ends=tokenizer.line_ends,
        costs=costs,
        neural=priced_neural(static.model, eager=True),
    )
    journal: Journal = []
    drafting.confidence.journal = journal
    for wanted in options.releases or [*DEFAULT, *MORE]:
        name, versions = fetch(wanted, options.cache)
        work = workload.releases(name, versions, encode, 200, fill_for(files, tokenizer))
        work.end_with(tokenizer.eos_ids[0])
        run_drafting(work, drafting, costs, static=static)
        names = [one for one, _, _ in journal]
        if all(names.count(one) >= options.predictions for one in ("text", "neural")):
            break
    return journal


def calibration(made: Float) -> tuple[float, list[tuple[float, float]]]:
    """Expected calibration error, and (mean predicted, share that held) of each bin. ``made``:
    rows of probability and outcome, [n, 2]."""
    ordered = made[np.argsort(made[:, 0], kind="stable")]
    bins = [part.mean(0) for part in np.array_split(ordered, BINS) if len(part)]
    sizes = [len(part) for part in np.array_split(ordered, BINS) if len(part)]
    gaps = [abs(p - held) * size for (p, held), size in zip(bins, sizes, strict=True)]
    return sum(gaps) / len(made), [(float(p), float(held)) for p, held in bins]


def losses(made: Float) -> tuple[float, float]:
    """Mean log loss of the predictions and of the running mean of outcomes."""
    predicted = running = 0.0
    right, count = 1.0, 2.0
    for p, held in made.tolist():
        p = min(max(p, 1e-6), 1 - 1e-6)
        mean = right / count
        predicted -= log(p if held else 1 - p)
        running -= log(mean if held else 1 - mean)
        right, count = right + held, count + 1
    return predicted / len(made), running / len(made)


if __name__ == "__main__":
    main()
