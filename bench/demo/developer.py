"""Someone who types: retypes lines of real files, and accepts what agrees with what they want."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

from bench.demo.editor import Editor, Suggested


@dataclass(frozen=True)
class Task:
    """A line of a file to be written again: the file without it, and what belongs there."""

    path: Path
    before: str
    wanted: str
    after: str


@dataclass
class Session:
    """What happened while typing."""

    asked: int = 0
    shown: int = 0
    accepted: int = 0
    accepted_in_part: int = 0
    characters: int = 0
    accepted_characters: int = 0
    ms: list[float] = field(default_factory=list)
    examples: list[tuple[Task, str, str]] = field(default_factory=list)
    """(task, what was typed, what was accepted)"""


def tasks(root: Path, files: list[str], count: int, seed: int = 7) -> list[Task]:
    """Lines from the middle of real files, the same ones at every run."""
    chooser = random.Random(seed)
    found = []
    for name in files:
        lines = (root / name).read_text().splitlines(keepends=True)
        for number in range(12, len(lines) - 4):
            wanted = lines[number].strip()
            if len(wanted) < 20 or wanted.startswith(("#", '"""', "import", "from")):
                continue
            indent = lines[number][: len(lines[number]) - len(lines[number].lstrip())]
            before = "".join(lines[:number]) + indent
            after = "\n" + "".join(lines[number + 1 :])
            found.append(Task(root / name, before, wanted, after))
    chooser.shuffle(found)
    return found[:count]


async def write(editor: Editor, task: Task, session: Session) -> None:
    """Write one line: look at a suggestion after every few characters, accept it if it is right."""
    editor.open(task.path, task.before + task.after)
    at, done = len(task.before), 0
    while done < len(task.wanted):
        session.asked += 1
        suggested = await editor.suggest(at + done)
        if suggested is not None:
            session.shown += 1
            session.ms.append(suggested.ms)
            if _agrees(suggested, task.wanted[done:]):
                await editor.accept(at + done, suggested)
                session.accepted += 1
                session.accepted_characters += len(suggested.text)
                session.examples.append((task, task.wanted[:done], suggested.text))
                done += len(suggested.text)
                continue
            if part := _right_words(suggested.text, task.wanted[done:]):
                editor.insert(at + done, part)
                session.accepted_in_part += 1
                session.accepted_characters += len(part)
                done += len(part)
                continue
        for letter in task.wanted[done : done + 4]:
            editor.insert(at + done, letter)
            done += 1
    session.characters += len(task.wanted)
    editor.close()


def _agrees(suggested: Suggested, rest: str) -> bool:
    """A developer accepts what is, as far as it goes, what they were about to type."""
    return len(suggested.text) >= 3 and rest.startswith(suggested.text)


def _right_words(suggested: str, rest: str) -> str:
    """The words a suggestion begins with that are right, as accepting word by word takes them."""
    part = ""
    for word in re.findall(r"\s*(?:\w+|[^\w\s]+)", suggested):
        if not rest.startswith(part + word) or rest[len(part + word) :][:1].isalnum():
            break
        part += word
    return part if len(part) >= 3 else ""
