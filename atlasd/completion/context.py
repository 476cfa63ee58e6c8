"""What the model is shown of other files: definitions of what is named near the cursor, what was
edited lately, what resembles this place. Chosen anew line by line, kept as long as possible."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from atlasd.completion.languages import Language, language_of
from atlasd.completion.names import identifiers, imported
from atlasd.completion.ports import Repository
from atlasd.completion.request import Piece

NEAR = 1200
"""Characters before the cursor whose names count as near."""
HELD_DOCUMENTS = 32
PATIENCE = 8
"""Lines typed before a piece that is no longer called for is let go."""
HOLD = 1.5
"""A piece shown before beats a new one up to this much better: changing costs a prefill."""
CHUNK_LINES = 40

_CALLED = re.compile(r"([A-Za-z_]\w{2,})\s*[(.{<]")


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


@dataclass
class _Held:
    """What a document's prompts show at present, in order."""

    line: int
    shown: list[Candidate]
    idle: dict[tuple[str, int], int]
    called: frozenset[str] = frozenset()
    """Names on the cursor's line that were in use when the pieces were chosen."""


class Context:
    """Chooses pieces; remembers per document what was shown, so that it stays where it is."""

    def __init__(self) -> None:
        self._documents: OrderedDict[tuple[str, str], _Held] = OrderedDict()

    def gather(
        self,
        repository: Repository,
        path: str,
        prefix: str,
        suffix: str,
        language: Language,
        characters: int,
    ) -> tuple[Piece, ...]:
        """Pieces of at most so many characters together. ``path`` is relative to the repository.

        While the cursor stays on its line, and nothing new is called on it, the answer stays the
        same; afterwards pieces that are still called for keep their places and new ones come
        behind them.
        """
        key = (str(repository.root), path)
        held = self._documents.get(key)
        line = prefix.count("\n")
        called = frozenset(_CALLED.findall(prefix[prefix.rfind("\n") + 1 :]))
        if held is None or held.line != line or not called <= held.called:
            held = self._choose(repository, path, prefix, suffix, language, characters, held)
            held.line, held.called = line, called
            self._documents[key] = held
            while len(self._documents) > HELD_DOCUMENTS:
                self._documents.popitem(last=False)
        self._documents.move_to_end(key)
        return tuple(Piece(each.path, each.text) for each in held.shown)

    def clear(self) -> None:
        self._documents.clear()

    def _choose(
        self,
        repository: Repository,
        path: str,
        prefix: str,
        suffix: str,
        language: Language,
        characters: int,
        held: _Held | None,
    ) -> _Held:
        found = candidates(repository, path, prefix, suffix, language)
        best: dict[tuple[str, int], Candidate] = {}
        for candidate in found:
            known = best.get(candidate.place)
            if known is None or candidate.score > known.score:
                best[candidate.place] = candidate
        idle: dict[tuple[str, int], int] = {}
        before: list[Candidate] = held.shown if held else []
        for shown in before:
            if shown.place in best:
                new = best[shown.place]
                best[shown.place] = replace(new, score=new.score * HOLD)
            elif held and held.idle.get(shown.place, 0) < PATIENCE and _stands(repository, shown):
                best[shown.place] = shown
                idle[shown.place] = held.idle.get(shown.place, 0) + 1
        chosen = _fitting(best.values(), characters)
        order = {shown.place: index for index, shown in enumerate(before)}
        chosen.sort(key=lambda each: (order.get(each.place, len(order)), each.path, each.line))
        return _Held(0, chosen, idle)


def _stands(repository: Repository, candidate: Candidate) -> bool:
    text = repository.text(candidate.path)
    return text is not None and candidate.text in text


def _fitting(found: Iterable[Candidate], characters: int) -> list[Candidate]:
    """The best that fit together, none inside another."""
    chosen: list[Candidate] = []
    for candidate in sorted(found, key=lambda each: (-each.score, each.path, each.line)):
        size = len(candidate.text) + len(candidate.path) + 8
        if size > characters or any(_covers(each, candidate) for each in chosen):
            continue
        chosen.append(candidate)
        characters -= size
    return chosen


def _covers(one: Candidate, other: Candidate) -> bool:
    """Whether the two show some of the same lines, or one's text is in the other."""
    if one.path != other.path:
        return other.text.strip() in one.text
    ends = one.line + one.text.count("\n"), other.line + other.text.count("\n")
    return one.line <= ends[1] and other.line <= ends[0]


def candidates(
    repository: Repository, path: str, prefix: str, suffix: str, language: Language
) -> list[Candidate]:
    """All that could be shown for a cursor, scored; the scores of the kinds overlap on purpose."""
    near = identifiers(prefix[-NEAR:], language)
    line = identifiers(prefix[prefix.rfind("\n") + 1 :], language)
    _, names = imported(prefix[:20_000], language)
    used = set(near)
    called_for = list(dict.fromkeys([*line, *(n for n in names if n in used), *near]))[:24]
    found = []
    for definition in repository.defining(called_for, limit=8):
        if definition.path != path:
            rank = called_for.index(definition.name) if definition.name in called_for else 24
            bonus = 1.0 if definition.name in line else 0.5 if definition.name in names else 0.0
            score = 2.0 + bonus - rank / 48
            found.append(Candidate(definition.path, definition.line, definition.text, score))
    wanted = frozenset(called_for) | frozenset(identifiers(suffix[:NEAR], language)[:16])
    for age, edit in enumerate(repository.recent(limit=6)):
        if edit.path != path:
            found += _best_chunks(edit.path, edit.text, wanted, 1.6 - age * 0.1)
    for other, score in repository.similar(called_for, exclude=[path], limit=4):
        text = repository.text(other)
        if text is not None:
            found += _best_chunks(other, text, wanted, 0.8 + score)
    return found


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
