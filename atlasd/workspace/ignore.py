"""Which files are ignored: ``.gitignore`` semantics, nested, with ``.git/info/exclude``, the
user's global excludes, ``.ignore`` and ``.atlasdignore``.

pathspec translates a pattern to a regular expression; here each pattern is asked about one path
component after the other, from the top, as git does it: what is inside an ignored folder cannot be
taken back, and a pattern that matches a folder says nothing of its own about what is in it.
``.atlasdignore`` outranks ``.ignore``, and that ``.gitignore``, at whatever depth they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Container, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pathspec.patterns.gitignore.base import GitIgnorePatternError
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

KINDS = (".atlasdignore", ".ignore", ".gitignore")
"""Files with patterns, the highest rank first."""

IGNORE_FILES = frozenset(KINDS)
_MAX_PATTERN_BYTES = 1 << 20
_GROUP = 32
"""Patterns compiled together, in two or three milliseconds."""


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
    ours = _BRACKETS.sub(_bracket, str(source))
    try:
        # Only a bracket expression can be wrong; compiling all would take long.
        if "[" in glob:
            re.compile(ours)
    except re.error:
        return None
    return ours


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


@dataclass(frozen=True)
class Level:
    """The patterns of one file. It sees paths below its own folder: ``drop`` characters less than
    paths relative to the root for a folder in the root, ``add`` in front for one around it."""

    add: str
    drop: int
    patterns: Patterns

    def decide(self, path: str, name: str, is_folder: bool) -> bool | None:
        return self.patterns.decide(self.add + path[self.drop :], name, is_folder)


@dataclass(frozen=True)
class Folder:
    """The rules in force in a folder: levels per kind, the deepest first."""

    levels: tuple[tuple[Level, ...], ...] = ((), (), ())

    def ignores(self, path: str, is_folder: bool) -> bool:
        """Whether an entry of this folder is ignored; ``path`` is relative to the root."""
        name = path.rpartition("/")[2]
        for kind in self.levels:
            for level in kind:
                verdict = level.decide(path, name, is_folder)
                if verdict is not None:
                    return verdict
        return False

    def prepare(self) -> Iterator[None]:
        """Compile what is in force here, step by step."""
        for kind in self.levels:
            for level in kind:
                yield from level.patterns.prepare()

    def with_level(self, kind: int, level: Level) -> Folder:
        levels = list(self.levels)
        levels[kind] = (level, *levels[kind])
        return Folder(tuple(levels))

    def with_git(self, levels: tuple[Level, ...]) -> Folder:
        """Only these for git: what was in force above belongs to another repository."""
        return Folder((*self.levels[:2], levels))


class IgnoreRules:
    """The ignore files of one root. Made anew when one of them changes."""

    def __init__(self, root: Path, environ: dict[str, str] | None = None) -> None:
        self.root = root
        self._environ = dict(os.environ) if environ is None else environ
        self._folders: dict[str, Folder] = {"": self._at_root()}

    def folder(self, relative: str) -> Folder:
        """The rules in a folder ("" is the root)."""
        known = self._folders.get(relative)
        if known is None:
            above = self.folder(relative.rpartition("/")[0])
            try:
                names: Container[str] = set(os.listdir(self.root / relative))
            except OSError:
                names = ()
            known = self.enter(above, relative, names)
        return known

    def enter(self, above: Folder, relative: str, names: Container[str]) -> Folder:
        """The rules in a folder whose entries are ``names``, from those in the folder above."""
        known = self._folders.get(relative)
        if known is None:
            here, drop = self.root / relative, len(relative) + 1
            known = above
            if ".git" in names:
                known = known.with_git(self._git_excludes(here, "", drop))
            known = _with_own_files(known, here, "", drop, names)
            self._folders[relative] = known
        return known

    def forget(self, folder: str) -> None:
        """A folder was made, moved or removed: what is in force in it is to be read again."""
        if folder not in self._folders:
            return  # then none below it is known either
        for known in [f for f in self._folders if f == folder or f.startswith(f"{folder}/")]:
            del self._folders[known]

    def ignored(self, path: str, is_folder: bool = False) -> bool:
        """Whether a path relative to the root is ignored, itself or by a folder on the way."""
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            step = "/".join(parts[:depth])
            folder = self.folder("/".join(parts[: depth - 1]))
            if folder.ignores(step, is_folder or depth < len(parts)):
                return True
        return False

    def _at_root(self) -> Folder:
        top = git_top(self.root)
        folder = Folder()
        for here in (top, *_between(top, self.root)) if top else (self.root,):
            add = "".join(f"{part}/" for part in self.root.relative_to(here).parts)
            if here == top:
                folder = folder.with_git(self._git_excludes(here, add, 0))
            folder = _with_own_files(folder, here, add, 0, _names(here))
        return folder

    def _git_excludes(self, top: Path, add: str, drop: int) -> tuple[Level, ...]:
        found = (info_exclude(top), global_excludes(self._environ))
        texts = (_read(path) for path in found if path)
        return tuple(Level(add, drop, Patterns(text)) for text in texts if text)


def _between(above: Path, below: Path) -> list[Path]:
    """The folders from ``above``, without it, down to ``below``."""
    parts = below.relative_to(above).parts
    return [above.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]


def _with_own_files(
    folder: Folder, here: Path, add: str, drop: int, names: Container[str]
) -> Folder:
    for kind, name in enumerate(KINDS):
        # Like git, no symlink is followed: it could lead out of the root.
        path = here / name
        if name in names and not path.is_symlink() and (text := _read(path)):
            folder = folder.with_level(kind, Level(add, drop, Patterns(text)))
    return folder


def _names(folder: Path) -> set[str]:
    return {name for name in KINDS if (folder / name).is_file()}


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > _MAX_PATTERN_BYTES:
            return ""
        return path.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def git_top(folder: Path) -> Path | None:
    """The folder of the innermost git repository around ``folder``, itself included."""
    return next((f for f in (folder, *folder.parents) if (f / ".git").exists()), None)


def info_exclude(top: Path) -> Path | None:
    """``info/exclude`` of a repository, of a linked worktree or a submodule too."""
    git = top / ".git"
    if git.is_file():
        pointer = _read(git).strip()
        if not pointer.startswith("gitdir:"):
            return None
        git = (top / pointer.removeprefix("gitdir:").strip()).absolute()
        if common := _read(git / "commondir").strip():
            git = git / common
    return git / "info" / "exclude"


def global_excludes(environ: dict[str, str]) -> Path | None:
    """git's ``core.excludesFile``, or where it is by default."""
    home = environ.get("HOME", "")
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    for path in (Path(home, ".gitconfig"), Path(config, "git", "config")):
        found = re.search(r"(?im)^\s*excludesfile\s*=\s*\"?([^\"\n#;]+)", _read(path))
        if found:
            value = found.group(1).strip()
            return Path(home, value[2:]) if value.startswith("~/") else Path(value)
    return Path(config, "git", "ignore")
