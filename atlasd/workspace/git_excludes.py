"""Where git keeps what is ignored besides ``.gitignore``: in a repository, and for the user."""

from __future__ import annotations

import re
from pathlib import Path

from atlasd.workspace.ignore_patterns import read


def git_top(folder: Path) -> Path | None:
    """The folder of the innermost git repository around ``folder``, itself included."""
    return next((f for f in (folder, *folder.parents) if (f / ".git").exists()), None)


def info_exclude(top: Path) -> Path | None:
    """``info/exclude`` of a repository, of a linked worktree or a submodule too."""
    git = top / ".git"
    if git.is_file():
        pointer = read(git).strip()
        if not pointer.startswith("gitdir:"):
            return None
        git = (top / pointer.removeprefix("gitdir:").strip()).absolute()
        if common := read(git / "commondir").strip():
            git = git / common
    return git / "info" / "exclude"


def global_excludes(environ: dict[str, str]) -> Path | None:
    """git's ``core.excludesFile``, or where it is by default."""
    home = environ.get("HOME", "")
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    for path in (Path(home, ".gitconfig"), Path(config, "git", "config")):
        found = re.search(r"(?im)^\s*excludesfile\s*=\s*\"?([^\"\n#;]+)", read(path))
        if found:
            value = found.group(1).strip()
            return Path(home, value[2:]) if value.startswith("~/") else Path(value)
    return Path(config, "git", "ignore")
