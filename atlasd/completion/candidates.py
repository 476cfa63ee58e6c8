"""Pieces of other files that a completion could be shown: definitions of what is named near the
cursor, what was edited lately, what resembles this place; each with a score."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

from atlasd.completion.languages import Language, language_of
from atlasd.completion.names import identifiers, imported
from atlasd.completion.ports import Repository

if TYPE_CHECKING:
    from atlasd.workspace.repository import Definition

NEAR = 1200
"""Characters before the cursor whose names count as near."""
FRESH_S = 5.0
"""What the repository said is asked again after this time: most names of one line are those of
the line before."""
MOST_NAMES = 16
MOST_DEFINITIONS = 5
MOST_HOMES = 2
"""A name that is defined in more files than this says little."""
CHUNK_LINES = 40

_DEFINES = re.compile(
    r"\b(?:def|class|fn|func|function|struct|enum|trait|type|interface|let|const|var|local|mod)"
    r"\s++(?:\([^)\n]{0,200}\)\s*+)?(\w+)"
)
T = TypeVar("T")


@dataclass(frozen=True)
class Spot:
    """A cursor in a file of a repository. ``path`` is relative to the root."""

    repository: Repository
    path: str
    prefix: str
    suffix: str
    language: Language

    @property
    def line(self) -> str:
        """The cursor's line, left of it."""
        return self.prefix[self.prefix.rfind("\n") + 1 :]


@dataclass(frozen=True)
class Candidate:
    """A piece of another file and how much it promises. ``line`` is where it begins."""

    path: str
    line: int
    text: str
    score: float

    @property
    def place(self) -> tuple[str, int]:
        return self.path, self.line


class Candidates:
    """Asks a repository, and the same question only once in ``fresh_s`` seconds."""

    def __init__(self, fresh_s: float = FRESH_S) -> None:
        self._fresh_s = fresh_s
        self._answers: dict[Hashable, tuple[float, Any]] = {}

    def find(self, spot: Spot) -> list[Candidate]:
        """All that could be shown for a cursor; the scores of the kinds overlap on purpose."""
        repository, prefix, suffix = spot.repository, spot.prefix, spot.suffix
        language = spot.language
        near = identifiers(prefix[-NEAR:], language)
        line = identifiers(spot.line, language)
        _, names = imported(prefix[:20_000], language)
        used = set(near)
        called_for = list(dict.fromkeys([*line, *(n for n in names if n in used), *near]))
        own = {*_DEFINES.findall(prefix[-20_000:]), *_DEFINES.findall(suffix[:10_000])}
        foreign = [name for name in called_for if name not in own][:MOST_NAMES]
        found = self._definitions(spot, foreign, line, names)
        wanted = frozenset(called_for[:24]) | frozenset(identifiers(suffix[:NEAR], language)[:16])
        for age, edit in enumerate(repository.recent(limit=6)):
            if edit.path != spot.path:
                found += _best_chunks(edit.path, edit.text, wanted, 1.6 - age * 0.1)
        alike = self._asked(
            (str(repository.root), spot.path, "similar"),
            lambda: repository.similar(called_for[:24], exclude=[spot.path], limit=3),
        )
        for other, score in alike:
            text = repository.text(other)
            if text is not None:
                found += _best_chunks(other, text, wanted, 0.8 + score)
        return found

    def clear(self) -> None:
        self._answers.clear()
        _chunks.cache_clear()

    def _definitions(
        self, spot: Spot, names: list[str], line: list[str], imports: list[str]
    ) -> list[Candidate]:
        found: list[Candidate] = []
        for rank, name in enumerate(names):
            defined = self._asked(
                (str(spot.repository.root), name), partial(spot.repository.defining, [name], 8)
            )
            homes = {definition.path for definition in defined}
            if not 0 < len(homes) <= MOST_HOMES or spot.path in homes:
                continue
            bonus = 1.0 if name in line else 0.5 if name in imports else 0.0
            found += [_candidate(each, 2.0 + bonus - rank / 48) for each in defined[:2]]
            if len(found) >= MOST_DEFINITIONS:
                break
        return found

    def _asked(self, question: Hashable, ask: Callable[[], T]) -> T:
        now = time.monotonic()
        known = self._answers.get(question)
        if known is not None and now - known[0] < self._fresh_s:
            answer: T = known[1]
            return answer
        if len(self._answers) > 1000:
            self._answers.clear()
        answer = ask()
        self._answers[question] = (now, answer)
        return answer


def _candidate(definition: Definition, score: float) -> Candidate:
    return Candidate(definition.path, definition.line, definition.text, score)


def _best_chunks(path: str, text: str, wanted: frozenset[str], score: float) -> list[Candidate]:
    """The chunk of a file that shares most names with the surroundings of the cursor."""
    best: tuple[float, int, str] | None = None
    for line, chunk, names in _chunks(path, text):
        shared = len(names & wanted)
        if shared >= 2:
            weight = shared / (len(names) + 8) ** 0.5
            if best is None or weight > best[0]:
                best = (weight, line, chunk)
    if best is None:
        return []
    return [Candidate(path, best[1], best[2], score * min(1.0, 0.4 + best[0] / 2))]


@lru_cache(maxsize=128)
def _chunks(path: str, text: str) -> tuple[tuple[int, str, frozenset[str]], ...]:
    """A file in pieces of up to CHUNK_LINES that begin where something at the margin begins."""
    language = language_of(None, path)
    lines = text[:400_000].splitlines()
    starts, last = [0], 0
    for index, line in enumerate(lines):
        margin = bool(line) and not line[0].isspace() and not language.continues.match(line)
        fresh = margin and (index == 0 or not lines[index - 1].strip())
        if (fresh and index - last >= CHUNK_LINES // 4) or index - last >= CHUNK_LINES:
            starts.append(index)
            last = index
    chunks = []
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        chunk = "\n".join(lines[start:end]).strip("\n")
        if chunk.strip():
            chunks.append((start, chunk, frozenset(identifiers(chunk, language))))
    return tuple(chunks)
