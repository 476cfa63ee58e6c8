"""Completions inside an indexed repository: tokens per second with drafting on against off.

    python -m bench.drafting [REPOSITORY] [--sites 30] [--tokens 64] [--model NAME]

In a copy of the repository a function's body is missing from each of some files; what the model
writes there is measured through /infill, untrimmed, once with drafting and once without
(``speculative.n_max: 0``), now the one first and now the other. Requests without drafting teach the
drafters nothing, so nobody drafts from an answer given before. The texts must be the same. As
*unseen* text, bodies of the standard library are completed before anything is indexed.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.holes import Hole, bodies, copy_repository, hole_in, take_out
from bench.report import spread, table
from bench.served import Served, serve

ROOT = Path(__file__).resolve().parents[1]
PREFIX_LINES, SUFFIX_LINES = 60, 15
LIBRARY = ("argparse", "ast", "tarfile", "inspect", "zipfile", "logging/__init__", "typing", "enum")


@dataclass
class Comparison:
    """Measurements of the same completions with drafting on and off. A text that is cut may have
    been decoded farther in one way than in the other before whoever reads it said so."""

    decoded: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    steps: int = 0
    ms: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})
    ratios: list[float] = field(default_factory=list)
    drafted: dict[str, int] = field(default_factory=dict)
    accepted: dict[str, int] = field(default_factory=dict)
    different: int = 0

    def add(self, texts: dict[bool, str], timings: dict[bool, dict[str, Any]]) -> None:
        """One completion, both ways: its text, and llama.cpp's ``timings`` of the answer."""
        self.different += texts[True] != texts[False]
        on, off = timings[True], timings[False]
        if min(on["predicted_n"], off["predicted_n"]) < 2:
            return
        for way, one in timings.items():
            self.ms[way] += one["predicted_ms"]
            self.decoded[way] += one["predicted_n"]
        self.steps += on["steps"]
        self.ratios.append(on["predicted_per_second"] / off["predicted_per_second"])
        for counts, more in ((self.drafted, on["drafted"]), (self.accepted, on["accepted"])):
            for source, count in more.items():
                counts[source] = counts.get(source, 0) + count

    def speed(self, drafting: bool) -> float:
        """Tokens per second over all completions."""
        return 1000 * self.decoded[drafting] / max(1e-9, self.ms[drafting])

    @property
    def tokens_a_step(self) -> float:
        return self.decoded[True] / max(1, self.steps)

    def row(self, name: str, goal: str) -> list[object]:
        sources = ", ".join(
            f"{source} {self.accepted.get(source, 0)} of {count}"
            for source, count in sorted(self.drafted.items(), key=lambda item: -item[1])
        )
        return [
            name,
            f"{spread(self.ratios or [0.0])}; in all {self.speed(True) / self.speed(False):.2f}",
            f"{self.speed(True):.0f} / {self.speed(False):.0f}",
            f"{self.tokens_a_step:.2f}",
            sources or "none",
            self.different,
            goal,
        ]


def compare(served: Served, holes: list[Hole], tokens: int, *, inside: bool) -> Comparison:
    """Complete every hole both ways, in alternating order."""
    done = Comparison()
    for turn, hole in enumerate(holes):
        prefix = "".join(hole.before.splitlines(keepends=True)[-PREFIX_LINES:])
        suffix = "".join(hole.after.splitlines(keepends=True)[:SUFFIX_LINES])
        more: dict[str, Any] = {"trim": False} | ({"path": str(hole.path)} if inside else {})
        # The prompt is in the cache for both.
        served.infill(prefix, suffix, n_predict=0, **more)
        answers = {}
        for drafting in (True, False) if turn % 2 else (False, True):
            switch = {} if drafting else {"speculative.n_max": 0}
            answers[drafting] = served.infill(prefix, suffix, n_predict=tokens, **more, **switch)
        done.add(
            {way: answer["content"] for way, answer in answers.items()},
            {way: answer["timings"] for way, answer in answers.items()},
        )
    return done


def unseen_holes(count: int) -> list[Hole]:
    """Bodies of the standard library's functions."""
    stdlib = Path(sysconfig.get_paths()["stdlib"])
    files = [stdlib / f"{name}.py" for name in LIBRARY]
    found = [(path, place) for path in files for place in bodies(path.read_text())]
    step = max(1, len(found) // count)
    return [hole_in(path, *place) for path, place in found[::step][:count]]


def measure(repository: Path, count: int, tokens: int, options: list[str]) -> tuple[str, bool]:
    """The table, and whether all texts were the same."""
    with tempfile.TemporaryDirectory(prefix="atlasd-drafting-") as folder:
        copy = Path(folder, repository.name)
        holes = take_out(copy_repository(repository, copy), count, seed=1)
        with serve(*options) as served:
            unseen = compare(served, unseen_holes(count), tokens, inside=False)
            served.open(copy)
            indexed = compare(served, holes, tokens, inside=True)
    header = ["sites", "on / off, median (spread)", "tokens/s on / off", "tokens a step"]
    text = table(
        "Drafting (`python -m bench.drafting`)",
        [*header, "accepted of drafted", "different texts", "goal"],
        [unseen.row("text never seen", "0.98"), indexed.row("indexed repository", "1.4")],
    )
    return text, not (unseen.different or indexed.different)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository", nargs="?", type=Path, default=ROOT)
    parser.add_argument("--sites", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--model")
    chosen = parser.parse_args()
    model = ["--model", chosen.model] if chosen.model else []
    text, same = measure(chosen.repository.absolute(), chosen.sites, chosen.tokens, model)
    print(text)
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
