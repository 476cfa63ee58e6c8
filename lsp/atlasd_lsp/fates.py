"""What became of a suggestion, read off the edits that follow it.

Clients that can tell say so (accept command, partial-accept notification). Stock VS Code cannot
tell of words and lines, and other clients tell nothing: there the edits decide. A suggestion is
*typed along* while single characters that agree with it are inserted; an insertion of more than
that is an accepted word, line or whole; anything that disagrees dismisses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fate = Literal["shown", "accepted", "accepted_word", "accepted_line", "dismissed", "superseded"]


@dataclass(frozen=True)
class Edit:
    """One change of a document: ``removed`` code points at ``start`` gave way to ``inserted``."""

    start: int
    removed: int
    inserted: str


@dataclass(frozen=True)
class Told:
    """A fate to report; ``accepted_length`` in code points from the suggestion's start."""

    id: str
    fate: Fate
    accepted_length: int | None = None


@dataclass
class Pending:
    """A suggestion on screen, and how much of it stands in the document."""

    id: str
    text: str
    start: int
    replace_right: int = 0
    known: int = 0
    """Code points of ``text`` that are in the document, typed or accepted."""
    accepted: int = 0
    """Up to where accepting, not typing, put them there."""
    reported: int = 0
    """Up to where the client itself told that it was accepted."""
    over: bool = False

    @property
    def rest(self) -> str:
        """What is not yet in the document."""
        return self.text[self.known :]

    def edit(self, change: Edit) -> Told | None:
        """Take one edit in; the fate it tells of, if any."""
        if self.over:
            return None
        at = self.start + self.known
        if change.start + change.removed < self.start:
            self.start += len(change.inserted) - change.removed
            return None
        if change.start > at + self.replace_right:
            return None
        if (
            not change.inserted
            and self.start <= change.start
            and change.start + change.removed == at
        ):
            self.known = change.start - self.start
            return None
        return self._insertion(change, at)

    def _insertion(self, change: Edit, at: int) -> Told | None:
        # Some clients accept by replacing from the suggestion's start or the line's start.
        overlap = at - change.start
        replaced = change.removed - max(overlap, 0)
        inserted = change.inserted[max(overlap, 0) :] if overlap >= 0 else ""
        rest = self.rest
        keeps = self.text[max(self.known - overlap, 0) : self.known] == change.inserted[:overlap]
        if overlap < 0 or replaced < 0 or replaced > self.replace_right or not keeps:
            return self._dismiss()
        if inserted and rest.startswith(inserted):
            self.known += len(inserted)
            if rest != inserted and (len(inserted) == 1 or inserted.isspace()):
                # A key, or a line's end with the indentation that editors put behind it.
                return None
            return self._accept()
        if len(inserted) == 2 and rest.startswith(inserted[0]):
            # The editor closed a bracket or quote by itself: typed along.
            self.known += 1
            self.replace_right += 1
            return None
        return self._dismiss()

    def _accept(self) -> Told | None:
        self.accepted = self.known
        self.over = self.known == len(self.text)
        if self.known <= self.reported:
            return None
        return Told(self.id, part_fate(self.text, self.known), self.known)

    def _dismiss(self) -> Told | None:
        self.over = True
        return None if self.accepted else Told(self.id, "dismissed")


def part_fate(text: str, length: int) -> Fate:
    """Whether the first ``length`` code points of a suggestion are all of it, lines or words."""
    if length >= len(text):
        return "accepted"
    return "accepted_line" if "\n" in (text[length - 1], text[length]) else "accepted_word"


def follow(pending: Pending, edits: list[Edit]) -> list[Told]:
    """The fates that a batch of edits, in the order they apply, tells of."""
    return [told for change in edits if (told := pending.edit(change)) is not None]
