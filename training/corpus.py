"""Read work/raw/ into work/corpus/*.jsonl and the committed manifest.json.

Each line of the output is one document: language, project, path inside it, split, text.

    python -m training.corpus [--project-cap 2000000]
"""

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from training import licence, quality
from training.dedup import Deduplicator
from training.fetch import HERE, folder_of, wanted

OUT = HERE / "work" / "corpus"
TEST_SHARE = 0.25  # of a project's bytes


@dataclass(frozen=True)
class Project:
    language: str
    name: str
    split: str
    root: Path  # where its sources begin
    licence: licence.Licence


def open_project(language: str, name: str, split: str) -> Project | None:
    folder = folder_of(language, name)
    if not folder.exists():
        return None
    version = (folder / "VERSION").read_text() if (folder / "VERSION").exists() else ""
    match language:
        case "python" if name == "stdlib":
            terms = licence.Licence("PSF-2.0", "3.11", lambda _path: True)
            return Project(language, name, split, folder / "lib", terms)
        case "python":
            return Project(language, name, split, folder, licence.of_wheel(folder))
        case "typescript":
            root = folder / "package"
            if not root.exists():
                root = next(p for p in folder.iterdir() if p.is_dir())
            return Project(language, name, split, root, licence.of_npm(root))
        case "c":
            root = folder / "source"
            return Project(
                language, name, split, root, licence.of_debian(root / "debian/copyright", version)
            )
    documentation = folder / "usr/share/doc"
    files = sorted(documentation.glob("*/copyright"))
    terms = (
        licence.of_debian(files[0], version)
        if files
        else licence.of_debian(documentation / "-", version)
    )
    depth = {"rust": "usr/share/cargo/registry/*", "go": "usr/share/gocode/src"}[language]
    root = next(iter(sorted(folder.glob(depth))), folder)
    return Project(language, name, split, root, terms)


def files_of(project: Project, cap: int) -> Iterator[tuple[str, str]]:
    """(path, cleaned text) of a project's usable files, tests last, at most `cap` bytes in all."""
    suffixes = quality.EXTENSIONS[project.language]
    paths = [p for p in sorted(project.root.rglob("*")) if p.suffix in suffixes and p.is_file()]
    if project.language == "typescript" and any("/src/" in p.as_posix() for p in paths):
        paths = [p for p in paths if "/src/" in p.as_posix()]  # the rest is build output
    random.Random(project.name).shuffle(paths)
    paths.sort(key=lambda p: quality.is_test(p.relative_to(project.root).as_posix()))
    used = tests = 0
    for path in paths:
        name = path.relative_to(project.root).as_posix()
        if path.stat().st_size > quality.LARGEST or path.is_symlink() or quality.is_vendored(name):
            continue
        if not project.licence.allows(_licensed_path(project, name)):
            continue
        raw = path.read_bytes().decode("utf-8", errors="replace")
        if licence.has_copyleft_header(raw) or (text := quality.clean(raw)) is None:
            continue
        if quality.is_test(name):
            if tests > TEST_SHARE * (used + 1):
                continue
            tests += len(text)
        used += len(text)
        if used > cap:
            return
        yield name, text


def _licensed_path(project: Project, name: str) -> str:
    """debian/copyright speaks of the source tree; Go is installed below its import path."""
    return "/".join(name.split("/")[3:]) or name if project.language == "go" else name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--project-cap", type=int, default=2_000_000)
    args = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    known = Deduplicator()
    manifest: list[dict[str, object]] = []
    dropped: defaultdict[str, int] = defaultdict(int)
    for split in ("held_out", "train"):  # held-out text first: training files are compared with it
        for language, names in wanted().items():
            total = 0
            with (OUT / f"{split}-{language}.jsonl").open("w") as out:
                for name in names[split]:
                    project = open_project(language, name, split)
                    if project is None:
                        continue
                    files = size = 0
                    for path, text in files_of(project, args.project_cap):
                        if split == "held_out":
                            known.hold_out(text)
                        elif known.leaks(text):
                            dropped["held-out"] += 1
                            continue
                        if not known.is_new(text):
                            dropped["duplicate"] += 1
                            continue
                        document = {"project": name, "path": path, "text": text}
                        out.write(json.dumps(document, ensure_ascii=False) + "\n")
                        files, size = files + 1, size + len(text.encode())
                    total += size
                    if files:
                        manifest.append(
                            {
                                "name": name,
                                "language": language,
                                "version": project.licence.version,
                                "licence": project.licence.summary,
                                "files": files,
                                "bytes": size,
                                "split": split,
                            }
                        )
                    else:
                        print(f"  nothing from {language}/{name} ({project.licence.summary})")
            print(
                f"{split} {language}: {total / 1e6:.1f} MB; dropped so far {dict(dropped)}",
                flush=True,
            )
    lines = ",\n".join(json.dumps(entry) for entry in manifest)
    (HERE / "manifest.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
