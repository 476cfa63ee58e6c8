"""Ignore rules, judged by git itself: ``git check-ignore`` on the same files."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlasd.workspace import ignore_patterns
from atlasd.workspace.ignore import IgnoreRules
from atlasd.workspace.ignore_patterns import Patterns, parse, translated
from atlasd.workspace.scan import scan

NAMES = ["a", "b", "foo", "bar.py", "x.log", "keep", ".hidden", "sub dir", "é", "[q]", "a.b.log"]


def git(root: Path, *arguments: str, data: str = "", home: Path | None = None) -> str:
    environment = {
        **os.environ,
        "HOME": str(home or root.parent),
        "XDG_CONFIG_HOME": str((home or root.parent) / ".config"),
        "GIT_CONFIG_NOSYSTEM": "1",
    }
    done = subprocess.run(
        ["git", *arguments], cwd=root, input=data.encode(), env=environment, capture_output=True
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout.decode()


def ignored_by_git(root: Path, paths: list[str], home: Path | None = None) -> set[str]:
    listed = git(
        root, "check-ignore", "--no-index", "-z", "--stdin", data="\0".join(paths), home=home
    )
    return {path for path in listed.split("\0") if path}


def ignored_by_us(root: Path, paths: list[str], home: Path | None = None) -> set[str]:
    place = home or root.parent
    rules = IgnoreRules(root, {"HOME": str(place), "XDG_CONFIG_HOME": str(place / ".config")})
    return {path for path in paths if rules.ignored(path, (root / path).is_dir())}


def make(root: Path, files: list[str]) -> list[str]:
    """Make files; returns all paths, folders included."""
    made: set[str] = set()
    for file in files:
        path = root / file
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
        relative = path.relative_to(root)
        made.update(str(p) for p in (relative, *relative.parents) if str(p) != ".")
    return sorted(made)


segment = st.sampled_from(
    ["a", "b", "foo", "*.log", "*", "**", "?", "[ab]", "[!a]*", "bar.py", "ke*p", "f?o", "a**b",
     ".*", "x.log", "sub dir", "\\[q\\]", "é", "***", "[a-c]", "keep", "*.b.*", "[[:alpha:]]"]
)  # fmt: skip
pattern = st.builds(
    lambda negation, lead, parts, tail: f"{negation}{lead}{'/'.join(parts)}{tail}",
    st.sampled_from(["", "", "!"]),
    st.sampled_from(["", "", "/", "**/"]),
    st.lists(segment, min_size=1, max_size=3),
    st.sampled_from(["", "", "/", "/**", "/*", " ", "\\ ", "\r"]),
)
ignore_text = st.lists(
    st.one_of(
        pattern, st.sampled_from(["", "# comment", "\\#a", "\\!a", "!", "/", "//", "[", "\\"])
    ),
    max_size=6,
).map("\n".join)
path = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map("/".join)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    files=st.lists(path, min_size=1, max_size=12),
    top=ignore_text,
    nested=st.dictionaries(st.sampled_from(["a", "foo", "a/b", "foo/a"]), ignore_text, max_size=2),
    exclude=ignore_text,
)
def test_the_same_files_are_ignored_as_git_ignores(
    tmp_path_factory: pytest.TempPathFactory,
    files: list[str],
    top: str,
    nested: dict[str, str],
    exclude: str,
) -> None:
    root = tmp_path_factory.mktemp("repository")
    git(root, "init", "-q")
    paths = make(root, files)
    (root / ".gitignore").write_text(top)
    for folder, text in nested.items():
        if (root / folder).is_dir():
            (root / folder / ".gitignore").write_text(text)
    (root / ".git" / "info").mkdir(exist_ok=True)
    (root / ".git" / "info" / "exclude").write_text(exclude)
    assert ignored_by_us(root, paths) == ignored_by_git(root, paths)


def test_the_users_global_excludes_count(tmp_path: Path) -> None:
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q", home=tmp_path)
    paths = make(root, ["a.swp", "src/b.swp", "src/c.py"])
    (tmp_path / ".config" / "git").mkdir(parents=True)
    (tmp_path / ".config" / "git" / "ignore").write_text("*.swp\n")
    expected = ignored_by_git(root, paths, tmp_path)
    assert ignored_by_us(root, paths, tmp_path) == expected == {"a.swp", "src/b.swp"}
    (tmp_path / ".gitconfig").write_text("[core]\n\texcludesFile = ~/my excludes\n")
    (tmp_path / "my excludes").write_text("c.py\n")
    expected = ignored_by_git(root, paths, tmp_path)
    assert ignored_by_us(root, paths, tmp_path) == expected == {"src/c.py"}


def test_rules_of_the_repository_around_a_root_hold_inside_it(tmp_path: Path) -> None:
    top = tmp_path / "mono"
    root = top / "packages" / "app"
    root.mkdir(parents=True)
    git(top, "init", "-q")
    paths = make(root, ["a.log", "src/b.log", "src/keep.log", "gen/c.py", "d.py"])
    (top / ".gitignore").write_text("*.log\n/packages/app/gen\n")
    (top / "packages" / ".gitignore").write_text("!keep.log\n")
    assert ignored_by_us(root, paths) == ignored_by_git(root, paths) == {
        "a.log", "src/b.log", "gen", "gen/c.py",
    }  # fmt: skip


def test_a_linked_worktree_uses_the_common_exclude_file(tmp_path: Path) -> None:
    main, linked = tmp_path / "main", tmp_path / "linked"
    main.mkdir()
    git(main, "init", "-q")
    identity = ("-c", "user.name=n", "-c", "user.email=e@x")
    git(main, *identity, "commit", "-q", "--allow-empty", "-m", "first")
    git(main, "worktree", "add", "-q", str(linked))
    (main / ".git" / "info").mkdir(exist_ok=True)
    (main / ".git" / "info" / "exclude").write_text("secret.py\n")
    paths = make(linked, ["secret.py", "open.py"])
    assert ignored_by_us(linked, paths) == ignored_by_git(linked, paths) == {"secret.py"}


def test_a_repository_inside_starts_its_git_rules_anew(tmp_path: Path) -> None:
    root = tmp_path / "outer"
    inner = root / "inner"
    inner.mkdir(parents=True)
    git(root, "init", "-q")
    git(inner, "init", "-q")
    make(root, ["a.py", "inner/a.py", "inner/b.py"])
    (root / ".gitignore").write_text("a.py\n")
    (inner / ".gitignore").write_text("b.py\n")
    rules = IgnoreRules(root, {"HOME": str(tmp_path)})
    assert [f.path for f in scan(root, rules) if f] == ["inner/a.py"]


def test_atlasdignore_outranks_ignore_and_that_gitignore(tmp_path: Path) -> None:
    make(tmp_path, ["a.py", "b.py", "c.py", "sub/a.py", "sub/b.py", "sub/d.py"])
    (tmp_path / ".gitignore").write_text("a.py\nb.py\n")
    (tmp_path / ".ignore").write_text("!b.py\nc.py\n")
    (tmp_path / ".atlasdignore").write_text("!c.py\n/sub/d.py\n")
    (tmp_path / "sub" / ".gitignore").write_text("!d.py\n!a.py\n")
    rules = IgnoreRules(tmp_path, {"HOME": str(tmp_path)})
    assert [f.path for f in scan(tmp_path, rules) if f] == ["b.py", "c.py", "sub/a.py", "sub/b.py"]


def test_many_patterns_are_compiled_in_steps_between_which_others_come_first(
    tmp_path: Path,
) -> None:
    make(tmp_path, ["a.py", "b199.py"])
    (tmp_path / ".gitignore").write_text("".join(f"b{n}.py\n" for n in range(200)))
    steps = list(scan(tmp_path, IgnoreRules(tmp_path, {"HOME": str(tmp_path)})))
    assert steps.index(next(filter(None, steps))) >= 200 // 32
    assert [one.path for one in steps if one] == ["a.py"]


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("*a" * 8 + "*b", "a" * 200),
        ("/x" + "*a" * 8 + "*b", "x" + "a" * 200),
        ("**/a/" * 8 + "b", "a/" * 200 + "c"),
        ("/".join(["*a*a*b"] * 8), "/".join(["a" * 100] * 8)),
    ],
)
def test_no_pattern_takes_for_ever(line: str, path: str) -> None:
    """Tried in every way, each of these is more than a thousand million steps."""
    assert Patterns(line).decide(path, path.rsplit("/", 1)[-1], False) is None


part = st.lists(st.sampled_from(["a", "b", "*", "**", "?", "[ab]", "[!a]", "\\*"]), min_size=1)
globs = st.lists(st.one_of(st.just("**"), part.map("".join)), min_size=1, max_size=4)
name = st.text("ab*", min_size=1, max_size=5)


@settings(max_examples=500)
@given(globs.map("/".join), st.lists(name, min_size=1, max_size=6).map("/".join))
def test_what_is_tried_once_finds_what_all_ways_find(glob: str, path: str) -> None:
    found = []
    for rewritten in (ignore_patterns.unhesitating, str):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ignore_patterns, "unhesitating", rewritten)
            source = translated(glob)
        match = re.search(source, path) if source else None
        found.append(match and (match.end(), match.groupdict().get("ps_d")))
    assert found[0] == found[1]


@pytest.mark.parametrize("line", ["", "   ", "# words", "!", "/", "[z-a]", "!/"])
def test_lines_that_say_nothing_are_passed_over(line: str) -> None:
    assert parse(line) is None


def test_an_ignore_file_that_is_a_symlink_is_not_read(tmp_path: Path) -> None:
    root = tmp_path / "root"
    make(root, ["a.py"])
    (tmp_path / "elsewhere").write_text("a.py\n")
    (root / ".gitignore").symlink_to(tmp_path / "elsewhere")
    assert ignored_by_us(root, ["a.py"]) == set()
