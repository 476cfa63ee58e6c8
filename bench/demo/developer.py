"""Someone who writes function bodies: types, reads what is suggested, takes what is right."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bench.demo.editor import Editor, Suggested
from bench.holes import Hole

Seen = Callable[["Shown"], Awaitable[None]]
"""Called with every suggestion while it is on the screen."""

LEAST = 3
"""Characters of a suggestion that are worth a key to accept them."""


@dataclass(frozen=True)
class Shown:
    """A suggestion as it stood on the screen, and how much of it was taken."""

    hole: Hole
    prefix: str
    suffix: str
    suggested: Suggested
    taken: str


@dataclass
class Session:
    """What happened while typing."""

    asked: int = 0
    accepted: int = 0
    accepted_in_part: int = 0
    bodies: int = 0
    characters: int = 0
    accepted_characters: int = 0
    shown: list[Shown] = field(default_factory=list)


async def write(editor: Editor, hole: Hole, session: Session, seen: Seen) -> None:
    """Write one body: look up after every word, take what is right, type the rest; then save."""
    editor.open(hole.path, hole.before + hole.after)
    at, done = len(hole.before), 0
    while done < len(hole.wanted):
        session.asked += 1
        prefix, suffix = editor.text[: at + done], editor.text[at + done :]
        suggested = await editor.suggest(at + done)
        rest = hole.wanted[done:]
        taken = right_part(suggested.text, rest) if suggested else ""
        taken = taken if len(taken) >= LEAST else ""
        if suggested is not None:
            one = Shown(hole, prefix, suffix, suggested, taken)
            session.shown.append(one)
            await seen(one)
        if suggested is not None and taken == suggested.text:
            await editor.accept(at + done, suggested)
            session.accepted += 1
        elif taken:
            # What an editor's key for the next word does; the bridge tells it from the edit.
            editor.insert(at + done, taken)
            session.accepted_in_part += 1
        else:
            for keys in keystrokes(rest):
                editor.insert(at + done, keys)
                done += len(keys)
        session.accepted_characters += len(taken)
        done += len(taken)
    session.bodies += 1
    session.characters += len(hole.wanted)
    editor.save()
    editor.close()


def right_part(suggested: str, rest: str) -> str:
    """The words a suggestion begins with that are right, as accepting them one by one takes them;
    all of it if it is what was about to be typed, as far as it goes."""
    if rest.startswith(suggested):
        return suggested
    part = ""
    for word in re.findall(r"\s*(?:\w+|[^\w\s]+)", suggested):
        if not rest.startswith(part + word) or rest[len(part + word) :][:1].isalnum():
            break
        part += word
    return part


def keystrokes(rest: str) -> list[str]:
    """What is typed before looking up again, an edit each: the letters of a word and what stands
    around it, or a line end with the indentation that an editor puts there by itself."""
    match = re.match(r"\n[ \t]*|[^\w\n]*\w+[^\w\n]*|[^\w\n]+", rest)
    assert match is not None
    return [match[0]] if match[0].startswith("\n") else list(match[0])
