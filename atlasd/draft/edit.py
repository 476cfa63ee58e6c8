"""The edit drafter: pointers into text that is being rewritten, kept over its changes.

A pointer stands in a text that the stream has been following. Where the stream leaves it, the
pointer waits at the anchor, the first place that was not taken over, and looks for the stream's
last tokens behind it: the nearest place that reads so is where text was inserted, left out or
replaced up to. Until two tokens agree again, its guesses are that the text goes on at the anchor
(insertion) or one token behind it (replacement).

A short gap, a few tokens for a few others, is remembered as a ``Rule``: renamed identifiers, other
casing, other indentation. Where a text that is drafted from has the old tokens, the new ones get a
share of its vote: as much as the rule has held before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from atlasd.draft.segments import Segment

MAX_RUN = 64
WINDOW = 48
"""Tokens behind the anchor among which the stream's last two are looked for."""
NEAR = 8
"""The same for the last one alone."""
AGAIN = 2
"""Tokens in step that end a gap."""
GIVEN_UP = 2
MAX_GAP = 32
RULE_TOKENS = 4
_RULES = 64
_DOUBT = 3.0
"""What a rule has to prove: it leads from its fourth time on."""


@dataclass(slots=True)
class Pointer:
    """Where a source of earlier drafts stands now."""

    segment: Segment
    position: int
    """Of the last token that was taken over; while lost that is the anchor's predecessor."""
    synced: int
    """Tokens that agreed since the last mismatch, up to 64."""
    run: int
    """Tokens that were accepted from here, halved by every gap."""
    skipped: int = 0
    """While lost: tokens behind ``position`` that are thought to be replaced or left out."""
    gap: list[int] = field(default_factory=list)
    """What the stream has had since the last agreement was certain; empty while in step."""

    def move(self, source: Sequence[int], tokens: Sequence[int], rules: Rules | None) -> int:
        """Follow verified ``tokens``; ``source`` is the text behind ``position``. Returns how far
        ``position`` has to be advanced, or -1 where the pointer leads nowhere."""
        size = len(source)
        base, at = 0, self.skipped
        gap = self.gap
        for token in tokens:
            if at < size and source[at] == token:
                at += 1
                self.synced += 1
                self.run += 1
                if gap:
                    if self.synced >= AGAIN:
                        kept = len(gap) + 1 - self.synced
                        if rules is not None:
                            rules.note(source[base : at - self.synced], gap[:kept])
                        gap.clear()
                        base = at
                    else:
                        gap.append(token)
                else:
                    base = at
                continue
            if not gap:
                self.run //= 2
            gap.append(token)
            self.synced = 0
            if len(gap) >= 2:
                found = _find_two(source, gap[-2], token, base, min(base + WINDOW, size))
                if found >= 0:
                    at = found + 2
                    self.synced = 2
                    if rules is not None:
                        rules.note(source[base:found], gap[:-2])
                    gap.clear()
                    base = at
                    continue
            found = _find_one(source, token, base, min(base + NEAR, size))
            if found >= 0:
                at = found + 1
                self.synced = 1
            else:
                at = base + 1
        if self.run < GIVEN_UP or len(gap) > MAX_GAP:
            return -1
        self.run = min(self.run, MAX_RUN)
        self.synced = min(self.synced, MAX_RUN)
        self.skipped = min(at, size) - base if gap else 0
        return base


@dataclass(slots=True)
class Rule:
    """``new`` was written where ``old`` stood."""

    old: tuple[int, ...]
    new: tuple[int, ...]
    right: float = 1.0
    wrong: float = 0.0

    @property
    def share(self) -> float:
        """How often it holds where there is ``old``."""
        return self.right / (self.right + self.wrong + _DOUBT)

    def learn(self, held: bool) -> None:
        self.right = max(0.01, 0.9 * self.right + held)
        self.wrong = 0.9 * self.wrong + (not held)


class Rules:
    """What was written for what, lately: at most one rule for each first token."""

    def __init__(self) -> None:
        self.by_first: dict[int, Rule] = {}

    def note(self, old: Sequence[int], new: Sequence[int]) -> None:
        """``new`` was written where ``old`` stood."""
        if not (1 <= len(old) <= RULE_TOKENS and 1 <= len(new) <= RULE_TOKENS):
            return
        known = self.by_first.pop(old[0], None)
        if known is None or known.old != tuple(old) or known.new != tuple(new):
            known = Rule(tuple(old), tuple(new))
        self.by_first[old[0]] = known
        if len(self.by_first) > _RULES:
            del self.by_first[next(iter(self.by_first))]

    def at(self, tokens: list[int], at: int) -> Rule | None:
        """The rule for what stands there, if any."""
        rule = self.by_first.get(tokens[at])
        if rule is not None and tuple(tokens[at : at + len(rule.old)]) == rule.old:
            return rule
        return None


def _find_two(source: Sequence[int], one: int, two: int, begin: int, end: int) -> int:
    for at in range(begin, end - 1):
        if source[at] == one and source[at + 1] == two:
            return at
    return -1


def _find_one(source: Sequence[int], token: int, begin: int, end: int) -> int:
    for at in range(begin, end):
        if source[at] == token:
            return at
    return -1
