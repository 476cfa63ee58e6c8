"""Requests from real text: the hunks that lead from one version of a repository to the next."""

from __future__ import annotations

import difflib
import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bench.replay.filling import Fill

Int32 = npt.NDArray[np.int32]
Encode = Callable[[str], list[int]]

SUFFIXES = {
    ".c": "c",
    ".go": "go",
    ".h": "c",
    ".js": "javascript",
    ".lua": "lua",
    ".md": "markdown",
    ".py": "python",
    ".rs": "rust",
    ".sh": "shell",
    ".toml": "toml",
    ".ts": "typescript",
}
FUNCTIONS = ("def ", "fn ", "pub fn ", "func ")
PREFIX_TOKENS = 1536
SUFFIX_TOKENS = 384
HUNK_LINES = (2, 60)
_FILE_BYTES = 400_000


@dataclass(frozen=True)
class Request:
    """One completion: the segments that changed before it, its prompt, and the recorded text."""

    repository: str
    language: str
    path: str
    changed: tuple[tuple[str, Int32], ...]
    """(path, text) of files that changed since the request before."""
    prompt: list[int]
    text: list[int]
    prediction: list[int] | None = None
    prefix_end: int = 0
    """See ``StreamView``."""


@dataclass
class Workload:
    """Requests in the order they were typed."""

    name: str
    requests: list[Request] = field(default_factory=list)

    def end_with(self, end: int) -> None:
        """Follow every text by the end token; requests without a prompt are left out."""
        self.requests[:] = [
            replace(request, text=[*request.text, end])
            for request in self.requests
            if request.prompt
        ]


Version = dict[str, str]


def folder_version(root: Path) -> Version:
    """The source files under a folder, by relative path."""
    found: Version = {}
    for path in sorted(root.rglob("*")):
        if path.suffix in SUFFIXES and path.is_file() and path.stat().st_size < _FILE_BYTES:
            found[str(path.relative_to(root))] = path.read_text("utf-8", errors="replace")
    return found


def git_versions(repository: Path, limit: int) -> Iterator[Version]:
    """The last ``limit`` first-parent versions of a git repository, oldest first."""

    def git(*arguments: str) -> bytes:
        command = ["git", "-C", str(repository), *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout

    commits = git("rev-list", "--first-parent", f"--max-count={limit}", "HEAD").decode().split()
    for commit in reversed(commits):
        version: Version = {}
        listing = git("ls-tree", "-r", "-l", "-z", commit).decode("utf-8", "replace")
        wanted = []
        for line in listing.split("\0"):
            head, _, path = line.partition("\t")
            fields = head.split()
            if len(fields) != 4 or fields[1] != "blob" or Path(path).suffix not in SUFFIXES:
                continue
            if int(fields[3]) < _FILE_BYTES:
                wanted.append((path, fields[2]))
        batch = subprocess.run(
            ["git", "-C", str(repository), "cat-file", "--batch"],
            input="\n".join(blob for _, blob in wanted).encode(),
            check=True,
            capture_output=True,
        ).stdout
        at = 0
        for path, _ in wanted:
            end = batch.index(b"\n", at)
            size = int(batch[at:end].split()[2])
            version[path] = batch[end + 1 : end + 1 + size].decode("utf-8", "replace")
            at = end + 2 + size
        yield version


def hunk_requests(
    repository: str, old: Version, new: Version, encode: Encode, fill: Fill, first: bool
) -> Iterator[Request]:
    """A request for every added hunk of 2 to 60 lines, in file order; ``first``: the repository
    has not been read yet."""
    changed: list[tuple[str, Int32]] = []
    if first:
        changed = [(path, _array(encode(text))) for path, text in old.items()]
    for path in sorted(old.keys() - new.keys()):
        changed.append((path, _array([])))
    for path, text in sorted(new.items()):
        before = old.get(path, "")
        if before == text:
            continue
        language = SUFFIXES[Path(path).suffix]
        old_lines, new_lines = before.splitlines(True), text.splitlines(True)
        matcher = difflib.SequenceMatcher(None, old_lines, new_lines, autojunk=False)
        for kind, _, a1, b0, b1 in matcher.get_opcodes():
            if kind not in ("insert", "replace") or not HUNK_LINES[0] <= b1 - b0 <= HUNK_LINES[1]:
                continue
            hunk = "".join(new_lines[b0:b1])
            if not hunk.strip() or b0 == 0:
                continue
            prefix = encode("".join(new_lines[:b0]))[-PREFIX_TOKENS:]
            suffix = encode("".join(old_lines[a1:]))[:SUFFIX_TOKENS]
            prompt, end = fill(prefix, suffix)
            yield Request(
                repository, language, path, tuple(changed), prompt, encode(hunk), prefix_end=end
            )
            # The file as it stands after this hunk was typed and saved.
            now = "".join(new_lines[:b1]) + "".join(old_lines[a1:])
            changed = [(path, _array(encode(now)))]
        changed.append((path, _array(encode(text))))


def _array(tokens: list[int]) -> Int32:
    return np.array(tokens, np.int32)


def releases(
    name: str, versions: list[Version], encode: Encode, limit: int, fill: Fill
) -> Workload:
    """The workload of successive versions of one repository, at most ``limit`` requests."""
    workload = Workload(name)
    for number, (old, new) in enumerate(pairwise(versions)):
        for request in hunk_requests(name, old, new, encode, fill, first=number == 0):
            workload.requests.append(request)
            if len(workload.requests) >= limit:
                return workload
    return workload


def rewrites(name: str, versions: list[Version], encode: Encode, limit: int) -> Workload:
    """Whole-file rewrites: the old file is in the prompt and is the prediction; the new file, whose
    small edits are real, is the text."""
    workload = Workload(name)
    for old, new in pairwise(versions):
        for path, text in sorted(new.items()):
            before = old.get(path, "")
            if not before or before == text or not 1000 < len(text) < 20_000:
                continue
            if difflib.SequenceMatcher(None, before, text).quick_ratio() < 0.9:
                continue
            prompt = encode(before)
            workload.requests.append(
                Request(name, "python", path, (), prompt, encode(text), prompt)
            )
            if len(workload.requests) >= limit:
                return workload
    return workload


def successive_files(
    name: str, root: Path, encode: Encode, limit: int, lines: int = 20
) -> Workload:
    """A package as if written file by file: at every fourth function or method, the next lines are
    a request; the repository is what was written before."""
    workload = Workload(name)
    version = folder_version(root)
    changed: list[tuple[str, Int32]] = []
    for path, text in sorted(version.items()):
        language = SUFFIXES[Path(path).suffix]
        written = text.splitlines(True)
        starts = [n for n, line in enumerate(written) if line.lstrip().startswith(FUNCTIONS)]
        for start in starts[::4]:
            hunk = "".join(written[start + 1 : start + 1 + lines])
            prefix = "".join(written[: start + 1])
            if hunk.strip():
                workload.requests.append(
                    Request(
                        name,
                        language,
                        path,
                        tuple(changed),
                        encode(prefix)[-PREFIX_TOKENS:],
                        encode(hunk),
                    )
                )
                changed = [(path, _array(encode(prefix + hunk)))]
            if len(workload.requests) >= limit:
                return workload
        changed.append((path, _array(encode(text))))
    return workload


def tool_calls(name: str, versions: list[Version], encode: Encode, limit: int) -> Workload:
    """A conversation with an agent: every hunk of two lines and more is a call of an editing tool
    as JSON, behind the file it read. Old and new text are real."""
    workload = Workload(name)
    for old, new in pairwise(versions):
        for path, text in sorted(new.items()):
            before = old.get(path, "")
            if not before or before == text:
                continue
            one, other = before.splitlines(True), text.splitlines(True)
            matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
            for kind, a0, a1, b0, b1 in matcher.get_opcodes():
                if kind != "replace" or not HUNK_LINES[0] <= b1 - b0 <= HUNK_LINES[1]:
                    continue
                read = json.dumps(
                    {"path": path, "content": "".join(one[max(0, a0 - 30) : a1 + 10])}
                )
                call = {
                    "name": "str_replace",
                    "arguments": {
                        "path": path,
                        "old_str": "".join(one[a0:a1]),
                        "new_str": "".join(other[b0:b1]),
                    },
                }
                prompt = encode(f"tool\n{read}\nassistant\n")[-PREFIX_TOKENS:]
                text_of_call = encode(json.dumps(call))
                workload.requests.append(Request(name, "json", path, (), prompt, text_of_call))
                if len(workload.requests) >= limit:
                    return workload
    return workload
