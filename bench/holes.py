"""Function bodies taken out of a copy of a repository, to be written again.

What a developer writes next is not in the repository yet. So it must not be in the index either
when completions are measured: each body is missing from its file on disk.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_DEF = re.compile(r"^(\s*)(?:async )?def \w+\(.*\).*:$")
_FEWEST, _MOST = 3, 9
_LEFT_OUT = {".safetensors", ".png", ".svg", ".lock"}


@dataclass(frozen=True)
class Hole:
    """A file without one body: ``before`` ends with the indentation of the body's first line."""

    path: Path
    before: str
    wanted: str
    after: str

    @property
    def line(self) -> int:
        """The line of the hole, counted from 1."""
        return self.before.count("\n") + 1


def copy_repository(source: Path, target: Path) -> list[Path]:
    """The tracked files of a repository, copied; returns the copies of Python files."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=source, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    python = []
    for name in listed:
        if Path(name).suffix in _LEFT_OUT or not (source / name).is_file():
            continue
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, copy)
        if copy.suffix == ".py":
            python.append(copy)
    subprocess.run(["git", "init", "-q", target], check=True)
    return sorted(python)


def bodies(text: str) -> list[tuple[int, int]]:
    """Lines [first, last) of short function bodies without a docstring or a blank line."""
    lines = text.splitlines()
    found = []
    for number, line in enumerate(lines):
        match = _DEF.match(line)
        first = number + 1
        if match is None or first >= len(lines) or lines[first].lstrip().startswith(('"', "#")):
            continue
        deeper = match[1] + " "
        last = first
        while last < len(lines) and lines[last].startswith(deeper):
            last += 1
        if _FEWEST <= last - first <= _MOST:
            found.append((first, last))
    return found


def hole_in(path: Path, first: int, last: int) -> Hole:
    """The file without its lines [first, last)."""
    lines = path.read_text().splitlines(keepends=True)
    body = "".join(lines[first:last])
    wanted = body.strip()
    indent = body[: body.index(wanted)]
    before = "".join(lines[:first]) + indent
    return Hole(path, before, wanted, "\n" + "".join(lines[last:]))


def take_out(files: list[Path], count: int, seed: int) -> list[Hole]:
    """Take a body out of each of ``count`` files, on disk as well; the same ones at every run."""
    chooser = random.Random(seed)
    candidates = [(path, found) for path in files if (found := bodies(path.read_text()))]
    chooser.shuffle(candidates)
    holes = [hole_in(path, *chooser.choice(found)) for path, found in candidates[:count]]
    for hole in holes:
        hole.path.write_text(hole.before + hole.after)
    return holes
