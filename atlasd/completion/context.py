"""What the model is shown of other files: definitions of what is named near the cursor, what was
edited lately, what resembles this place. Chosen anew line by line, kept as long as possible."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from atlasd.completion.candidates import FRESH_S, Candidate, Candidates, Spot
from atlasd.completion.ports import Repository
from atlasd.completion.request import Piece

HELD_DOCUMENTS = 32
PATIENCE = 8
"""Lines typed before a piece that is no longer called for is let go."""
HOLD = 1.5
"""A piece shown before beats a new one up to this much better: changing costs a prefill."""

_CALLED = re.compile(r"\b([A-Za-z_]\w{2,})\s*[(.{<]")


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

    def __init__(self, fresh_s: float = FRESH_S) -> None:
        self._candidates = Candidates(fresh_s)
        self._documents: OrderedDict[tuple[str, str], _Held] = OrderedDict()

    def gather(self, spot: Spot, characters: int) -> tuple[Piece, ...]:
        """Pieces of at most so many characters together.

        While the cursor stays on its line, and nothing new is called on it, the answer stays the
        same; afterwards pieces that are still called for keep their places and new ones come
        behind them.
        """
        key = (str(spot.repository.root), spot.path)
        held = self._documents.get(key)
        line = spot.prefix.count("\n")
        called = frozenset(_CALLED.findall(spot.line))
        if held is None or held.line != line or not called <= held.called:
            held = self._choose(spot, characters, held)
            held.line, held.called = line, called
            self._documents[key] = held
            while len(self._documents) > HELD_DOCUMENTS:
                self._documents.popitem(last=False)
        self._documents.move_to_end(key)
        return tuple(Piece(each.path, each.text) for each in held.shown)

    def clear(self) -> None:
        self._documents.clear()
        self._candidates.clear()

    def _choose(self, spot: Spot, characters: int, held: _Held | None) -> _Held:
        found = self._candidates.find(spot)
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
            elif (
                held
                and held.idle.get(shown.place, 0) < PATIENCE
                and _stands(spot.repository, shown)
            ):
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
