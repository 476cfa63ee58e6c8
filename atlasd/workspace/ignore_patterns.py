"""The patterns of one ignore file, as git reads them.

pathspec translates a pattern to a regular expression; here each pattern is asked about one path
component after the other, from the top, as git does it: what is inside an ignored folder cannot be
taken back, and a pattern that matches a folder says nothing of its own about what is in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

_MAX_BYTES = 1 << 20
_GROUP = 32
"""Patterns compiled together, in two or three milliseconds."""


def read(path: Path) -> str:
    """The text of a file with patterns; empty where there is none that can be read."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return ""
        return path.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


@dataclass(frozen=True)
class Pattern:
    ignores: bool
    folders_only: bool
    anchored: bool
    """Matches the path below the file that holds it; otherwise a name at any depth."""
    source: str

    @cached_property
    def regex(self) -> re.Pattern[str]:
        """Compiled when something first seems to match: nearly all patterns never do."""
        return re.compile(self.source)

    def matches(self, path: str, name: str, is_folder: bool) -> bool:
        if self.folders_only and not is_folder:
            return False
        match = self.regex.search(path if self.anchored else name)
        # The named group is pathspec's mark of a match that ended at a folder further up.
        return match is not None and match.groupdict().get("ps_d") is None


class Group:
    """Some patterns that follow each other. Nearly always none of them matches, and one
    alternation of all tells so."""

    def __init__(self, patterns: list[Pattern]) -> None:
        self._patterns = patterns

    @cached_property
    def names(self) -> re.Pattern[str] | None:
        return _any_of([p for p in self._patterns if not p.anchored])

    @cached_property
    def paths(self) -> re.Pattern[str] | None:
        return _any_of([p for p in self._patterns if p.anchored])

    def decide(self, path: str, name: str, is_folder: bool) -> bool | None:
        if not (self.names and self.names.search(name)) and not (
            self.paths and self.paths.search(path)
        ):
            return None
        for pattern in reversed(self._patterns):
            if pattern.matches(path, name, is_folder):
                return pattern.ignores
        return None


class Patterns:
    """The patterns of one file, in its order."""

    def __init__(self, text: str) -> None:
        lines = text.removeprefix("\ufeff").split("\n")
        found = [p for line in lines if (p := parse(line.removesuffix("\r")))]
        self._groups = [Group(found[at : at + _GROUP]) for at in range(0, len(found), _GROUP)]
        self._prepared = 0

    def prepare(self) -> Iterator[None]:
        """Compile them, in steps of a few milliseconds; otherwise that is done when asked."""
        while self._prepared < len(self._groups):
            group = self._groups[self._prepared]
            _ = group.names, group.paths
            self._prepared += 1
            yield

    def decide(self, path: str, name: str, is_folder: bool) -> bool | None:
        """True: ignored, False: taken back, None: nothing said. The last match counts."""
        if not path.isascii():
            path, name = bytewise(path), bytewise(name)
        for group in reversed(self._groups):
            verdict = group.decide(path, name, is_folder)
            if verdict is not None:
                return verdict
        return None


def parse(line: str) -> Pattern | None:
    """One line of an ignore file; None for comments, blank lines and what git discards."""
    if line.startswith("#"):
        return None
    text = line if line.endswith("\\ ") else line.rstrip(" ")
    ignores = not text.startswith("!")
    body = text if ignores else text[1:]
    folders_only = body.endswith("/")
    body = body[:-1] if folders_only else body
    if not body or body == "/":
        return None
    source = translated(bytewise(body))
    return Pattern(ignores, folders_only, "/" in body, source) if source else None


def bytewise(text: str) -> str:
    """One character per byte: git's ``?`` stands for a byte of a name."""
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def translated(glob: str) -> str | None:
    """A glob, without negation and without a slash at its end, as a regular expression's source;
    None for one that matches nothing."""
    for name, characters in _CLASSES.items():
        glob = glob.replace(f"[:{name}:]", characters)
    glob = "/".join("**" if re.fullmatch(r"\*{3,}", part) else part for part in glob.split("/"))
    try:
        # A ! or # in front is meant literally: the real negation has been taken off.
        source, _ = GitIgnoreSpecPattern.pattern_to_regex(f"\\{glob}" if glob[0] in "!#" else glob)
    except GitIgnorePatternError:
        return None
    if source is None:
        return None
    ours = unhesitating(_BRACKETS.sub(_bracket, str(source)))
    try:
        # Only a bracket expression can be wrong; compiling all would take long.
        if "[" in glob:
            re.compile(ours)
    except re.error:
        return None
    return ours


_STAR = "[^//]*"
_FOLDERS, _SOME_FOLDERS = "^(?:.+/)?", "(?:/.+)?/"
"""What pathspec makes of ``**/`` in front, and of ``/**/``."""
_FIXED = r"(?:\\.|\[\^?(?:\\.|[^\]\\])+\](?!\*)|[^\\/\[\]()|^$.*+?])+"
"""Characters and bracket expressions: no star, no slash."""
_BETWEEN_STARS = re.compile(f"{re.escape(_STAR)}({_FIXED})(?={re.escape(_STAR)})", re.DOTALL)


def unhesitating(source: str) -> str:
    """The regular expression of a glob, so that what stands between two stars is looked for once
    and taken where it is first: what follows can only gain by that. Otherwise all ways to share a
    name among the stars are tried, which for ``*a*a*a*a*b`` takes seconds a name, and a regular
    expression lets nothing else run."""
    while _STAR * 2 in source:
        source = source.replace(_STAR * 2, _STAR)
    source = _BETWEEN_STARS.sub(rf"(?>{_STAR}?\1)", source)
    first, *between, last = parts if len(parts := source.split(_SOME_FOLDERS)) > 1 else ("", source)
    if not first:
        return source
    if first.startswith(_FOLDERS):
        first = rf"^(?>(?:.+?/)??{first.removeprefix(_FOLDERS)}(?=/))"
    between = [rf"(?>(?:/.+?)??/{part}(?=/))" for part in between]
    # The last is greedy: a match that ends with the path counts for more than one further up.
    return first + "".join(between) + _SOME_FOLDERS + last


# pathspec copies bracket expressions as they are: in git they never match a slash, and what is
# special in them only for Python is literal.
_BRACKETS = re.compile(r"\\.|\[(\^?)(\]?[^\]]*)\]", re.DOTALL)
_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "xdigit": "0-9a-fA-F",
    "space": " \t\n\r\f\v",
    "blank": " \t",
    "punct": "!-/:-@\\[-`{-~",
}


def _bracket(match: re.Match[str]) -> str:
    if match[2] is None:
        return match[0]
    inner = re.sub(r"[\[\]&|~]", r"\\\g<0>", match[2])
    return f"[^/{inner}]" if match[1] else f"[{inner}]"


def _any_of(patterns: list[Pattern]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    sources = (re.sub(r"\?P<ps_d>", "?:", p.source) for p in patterns)
    return re.compile("|".join(f"(?:{source})" for source in sources))
