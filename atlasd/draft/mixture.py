"""One draft from all text sources: at every token the places found by *positions* and the
successors known to *recycle* vote, and what most mass stands behind is drafted.

A vote's mass depends on its kind (match length, kind of segment, count, …) and on what else is
voted for; ``masses`` learns it from the verified text. Every vote is scored, drafted or not, at
every token up to the one where the draft went wrong.
"""

from __future__ import annotations

from math import log

from atlasd.draft.drafter import EMPTY, Draft, StreamView, VerifiedRows
from atlasd.draft.edit import Rule, Rules
from atlasd.draft.masses import Masses, Vote
from atlasd.draft.positions import Place, Positions
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.positions_lookup import MAX_MATCH
from atlasd.draft.recycle import VOTE_KINDS, Recycle
from atlasd.draft.segments import Segment


def _buckets(size: int, *edges: int) -> tuple[int, ...]:
    """Table from a count to how many of the edges it reaches."""
    return tuple(sum(count >= edge for edge in edges) for count in range(size))


LENGTH = _buckets(4 * MAX_MATCH, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
_DEPTH = _buckets(4 * MAX_MATCH, 1, 2, 3, 5, 9, 17, 33)
_RELOOKUPS = 3
_CHUNK = 16
"""Tokens at a time: where confidence is high the controller asks for more. Farther ones are seldom
wrong, and their votes not learned from."""

FEATURES = 5

PRIOR = [0.8 * ((bucket % 32) - 12.0) / 3.0 for bucket in range(64)]
"""Weights of the first feature before anything is learned: the mixture's own log odds, subdued."""


class Mixture:
    """The free drafter over all text that was seen.

    Features of a token: mixture probability with the source that leads; match length with how many
    votes agree; kind of the leading place with divergences; depth; age of the segment.
    """

    name = "text"
    free = True

    def __init__(self, index: PositionIndex, recycle: Recycle) -> None:
        self.positions = Positions(index)
        self.recycle = recycle
        self.masses = Masses()
        self.least_reach = 0.02
        """Drafting ends where the mixture's own reach falls below this."""
        self._cast: dict[int, list[tuple[int, list[Vote]]]] = {}
        """The draft's tokens, each with the votes it was chosen by."""
        self._applied: dict[int, list[Rule]] = {}

    def begin(self, stream: StreamView) -> None:
        self.check_prediction(stream)
        self.positions.begin(stream)
        self.recycle.begin(stream)

    def check_prediction(self, stream: StreamView) -> None:
        """Take away a prediction that has tokens which the target does not have."""
        expected = stream.prediction
        if expected is not None and len(expected) and expected.max() >= self.recycle.vocab_size:
            stream.prediction = None

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        tail = stream.last(2) + after
        if len(tail) < 2:
            return EMPTY
        limit = min(limit, _CHUNK)
        places = self.positions.places(stream, after, limit)
        votes_of = self.recycle.votes
        rules = self.positions.rules
        one, two = tail[-2], tail[-1]
        line = self.recycle.line_after(stream, after)
        drafted: list[int] = []
        features: list[tuple[int, ...]] = []
        parts: list[tuple[str, int]] = []
        credit: Segment | None = None
        reach, diverged, lookups, since = 1.0, 0, 0, 0
        cast: list[tuple[int, list[Vote]]] = []
        if not after:
            self._cast[stream.stream] = cast
        while len(drafted) < limit:
            depth = len(drafted)
            votes: list[Vote] = []
            applied: list[Rule | None] = []
            for place in places:
                rule = None
                if since < len(place.tokens):
                    kind = VOTE_KINDS + LENGTH[place.match + since] * 64 + place.kind
                    rule = rules.at(place.tokens, since) if rules.by_first else None
                    share = 1.0
                    if rule is not None:
                        share -= rule.share
                        votes.append(Vote(rule.new[0], kind, rule.share, place.rank, place.age))
                    token = place.tokens[since]
                    votes.append(Vote(token, kind, share, place.rank, place.age))
                applied.append(rule)
            votes += [Vote(token, kind) for token, kind in votes_of(one, two, line)]
            if depth == 0 and not after:
                self._applied[stream.stream] = [rule for rule in applied if rule is not None]
            if not votes:
                break
            behind: dict[int, float] = {}
            total = 1.0
            for vote, weight in zip(votes, self.masses.weigh(votes), strict=True):
                total += weight
                behind[vote.token] = behind.get(vote.token, 0.0) + weight
            token = max(behind, key=behind.__getitem__)
            probability = behind[token] / total
            cast.append((token, votes))
            reach *= probability
            if reach < self.least_reach and depth > 0:
                break
            lead: Place | None = None
            agree = 0
            if places:
                alive = []
                for place, rule in zip(places, applied, strict=True):
                    if since >= len(place.tokens):
                        continue
                    if place.tokens[since] == token:
                        alive.append(place)
                    elif rule is not None and rule.new[0] == token:
                        rest = place.tokens[since + len(rule.old) :]
                        alive.append(
                            place._replace(tokens=[*place.tokens[:since], *rule.new, *rest])
                        )
                diverged += len(alive) < len(places)
                places = alive
                agree = len(alive)
                if agree:
                    lead = max(alive, key=_match)
            source = "recycle" if lead is None else "positions"
            logit = int(3.0 * log(probability / (1.0 - probability + 1e-4)) + 12.5)
            level = 0 if logit < 0 else 31 if logit > 31 else logit
            if lead is None:
                match, kind, age = 0, 0, 0
            else:
                match, kind = LENGTH[lead.match + since], lead.kind
                age = lead.age
                if depth == 0:
                    credit = lead.segment
            features.append(
                (
                    level + 32 * (lead is not None),
                    match * 16 + min(agree, 3) * 4 + min(len(behind) - 1, 3),
                    kind * 4 + min(diverged, 3),
                    _DEPTH[depth] * 16 + level // 2,
                    age,
                )
            )
            drafted.append(token)
            self.recycle.lines.push(line, token)
            if parts and parts[-1][0] == source:
                parts[-1] = (source, parts[-1][1] + 1)
            else:
                parts.append((source, 1))
            one, two = two, token
            since += 1
            if not places and lookups < _RELOOKUPS and reach > 2 * self.least_reach:
                lookups += 1
                places = self.positions.places(stream, after + drafted, limit - len(drafted))
                since = 0
        if not drafted:
            return EMPTY
        return Draft(self.name, drafted, features, credit, parts=tuple(parts))

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        cast = self._cast.pop(stream.stream, [])
        applied = self._applied.pop(stream.stream, [])
        if stream.learn:
            for (chosen, votes), token in zip(cast, tokens, strict=False):
                self.masses.learn(votes, token)
                if chosen != token:
                    break
            for rule in {id(rule): rule for rule in applied}.values():
                if tokens[0] in (rule.old[0], rule.new[0]):
                    rule.learn(tokens[0] == rule.new[0])
        self.positions.observe(stream, tokens)
        self.recycle.observe(stream, tokens, rows)

    def settle(self, draft: Draft, accepted: int) -> None:
        if isinstance(draft.credit, Segment):
            draft.credit.credit += accepted

    def end(self, stream: StreamView) -> None:
        self._cast.pop(stream.stream, None)
        self._applied.pop(stream.stream, None)
        self.positions.end(stream)
        self.recycle.end(stream)

    def masses_state(self) -> tuple[list[float], list[float]]:
        """Mass and evidence of each kind of vote."""
        return self.masses.value, self.masses.seen

    def load_masses(self, value: list[float], seen: list[float]) -> None:
        """Take over what ``masses_state`` gave."""
        if len(value) == len(self.masses.value) == len(seen):
            self.masses.value, self.masses.seen = value, seen

    def forget(self, repository: str | None) -> None:
        """Drop what votes and contexts learned; they have no owner."""
        self.recycle.clear()
        self.positions.rules = Rules()
        if repository is None:
            self.masses = Masses()


def _match(place: Place) -> int:
    return place.match
