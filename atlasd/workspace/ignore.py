"""Which files are ignored: ``.gitignore`` semantics, nested, with ``.git/info/exclude``, the
user's global excludes, ``.ignore`` and ``.atlasdignore``.

``.atlasdignore`` outranks ``.ignore``, and that ``.gitignore``, at whatever depth they are.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from atlasd.workspace.git_excludes import git_top, global_excludes, info_exclude
from atlasd.workspace.ignore_patterns import Patterns, read

KINDS = (".atlasdignore", ".ignore", ".gitignore")
"""Files with patterns, the highest rank first."""

IGNORE_FILES = frozenset(KINDS)


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
        texts = (read(path) for path in found if path)
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
        if name in names and not path.is_symlink() and (text := read(path)):
            folder = folder.with_level(kind, Level(add, drop, Patterns(text)))
    return folder


def _names(folder: Path) -> set[str]:
    return {name for name in KINDS if (folder / name).is_file()}
