"""Completions inside an indexed repository: tokens per second with drafting on against off.

    python -m bench.drafting [REPOSITORY] [--sites 30] [--tokens 64] [--model NAME]

Sites are cursors in the repository's own Python files. All are completed with drafting off, then
with drafting on (switching on sends the engine every file again, so it is done once and waited
for), through /infill, which neither trims nor remembers. The
text must be the same. As *unseen* text, files that are not of the repository are completed in
another folder with nothing indexed.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

from bench.report import spread, table
from bench.served import Served, serve

SETTLE_S = 15.0
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Site:
    prefix: str
    suffix: str


def sites_in(files: list[Path], count: int, seed: int = 1) -> list[Site]:
    """Cursors at the end of a line that opens or continues a block, somewhere in these files."""
    chooser = random.Random(seed)
    found = []
    for path in files:
        lines = path.read_text(errors="replace").splitlines(keepends=True)
        for number in range(8, len(lines) - 8, 9):
            if lines[number].strip():
                before = "".join(lines[max(0, number - 60) : number])
                after = "".join(lines[number + 1 : number + 15])
                found.append(Site(before, after))
    chooser.shuffle(found)
    return found[:count]


def compare(served: Served, sites: list[Site], tokens: int) -> tuple[list[float], float, float]:
    """Per site the ratio of tokens per second, on over off; tokens a step; different texts."""
    speeds: dict[bool, list[float]] = {True: [], False: []}
    texts: dict[bool, list[str]] = {True: [], False: []}
    per_step: list[float] = []
    for on in (False, True):
        served.drafting(on)
        if on:
            # Switching on sends the engine every file again: that is not what is measured here.
            time.sleep(SETTLE_S)
        for site in sites:
            answer = served.infill(site.prefix, site.suffix, n_predict=tokens)
            timings = answer["timings"]
            speeds[on].append(timings["predicted_per_second"])
            texts[on].append(answer["content"])
            if on and answer["tokens_predicted"]:
                plain = timings["predicted_n"] - timings.get("draft_n_accepted", 0)
                per_step.append(timings["predicted_n"] / max(1, plain))
    ratios = [on / off for on, off in zip(speeds[True], speeds[False], strict=True) if off]
    different = sum(one != other for one, other in zip(texts[True], texts[False], strict=True))
    return ratios, statistics.fmean(per_step or [0.0]), different


def measure(repository: Path, count: int, tokens: int, options: list[str]) -> str:
    inside = sorted(path for path in repository.rglob("*.py") if ".venv" not in path.parts)
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    unseen = [stdlib / name for name in ("argparse.py", "ast.py", "tarfile.py", "inspect.py")]
    rows: list[list[object]] = []
    with serve(*options) as served:
        ratios, step, different = compare(served, sites_in(unseen, count), tokens)
        rows.append(["text never seen", spread(ratios), f"{step:.2f}", different, "0.98"])
        served.open(repository)
        ratios, step, different = compare(served, sites_in(inside, count), tokens)
        rows.append(["indexed repository", spread(ratios), f"{step:.2f}", different, "1.4"])
    return table(
        "Drafting (`python -m bench.drafting`)",
        ["sites", "on / off, tokens per second", "tokens a step", "different texts", "goal"],
        rows,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--sites", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--model")
    chosen = parser.parse_args()
    model = ["--model", chosen.model] if chosen.model else []
    print(measure(chosen.repository.absolute(), chosen.sites, chosen.tokens, model))
