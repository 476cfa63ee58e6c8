"""Drafting from text that was seen before: files, requests, accepted completions, own output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from atlasd.draft.drafter import EMPTY, Draft, StreamView, VerifiedRows
from atlasd.draft.ngrams import LONGEST, extend_prefix_hashes
from atlasd.draft.positions_index import MAX_MATCH, Context, PositionIndex, context_of
from atlasd.draft.segments import KINDS, Segment

_PROMPTS = 8
_OUTPUTS = 64
_LEAST_OUTPUT = 8


def _log_buckets(size: int, *edges: int) -> tuple[int, ...]:
    """Table from a count to how many edges it reaches."""
    return tuple(sum(count >= edge for edge in edges) for count in range(size))


_LENGTH = _log_buckets(MAX_MATCH * 2 + 1, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
_COARSE = _log_buckets(MAX_MATCH * 2 + 1, 3, 4, 6, 8, 12, 20, 40)
_DEPTH = _log_buckets(MAX_MATCH + 1, 1, 2, 3, 5, 9, 17, 33)
_COUNT = _log_buckets(16, 2, 3, 5)


class _Place(NamedTuple):
    """A place to draft from and the text that follows it."""

    weight: float
    match: int
    tokens: list[int]
    segment: Segment
    position: int
    pointed: bool


@dataclass(slots=True)
class _Pointer:
    """Where the last draft's source stands now, kept over a mismatch."""

    segment: Segment
    position: int
    synced: int
    """Tokens that agreed since the last mismatch."""
    run: int
    """Tokens that were accepted from here altogether."""


@dataclass(slots=True)
class _State:
    segment: Segment
    prefix: list[int]
    pointer: _Pointer | None = None
    offered: list[_Place] = field(default_factory=list)


class Positions:
    """The adaptive drafter over a ``PositionIndex``.

    Features of a token: its match length; how the recent places vote on it; the kind of segment,
    whether it is of the same repository and continues the last draft; depth and whether places
    diverged before; match length at the start with the vote; age of the segment.
    """

    name = "positions"
    free = True

    def __init__(self, index: PositionIndex) -> None:
        self.index = index
        self._streams: dict[int, _State] = {}
        self._prompts: list[Segment] = []
        self._serial = 0
        self._outputs = 0

    def begin(self, stream: StreamView) -> None:
        tokens = np.array(stream.tokens, np.int32)
        segment = self._prompt_segment(stream, tokens)
        prefix = [0]
        extend_prefix_hashes(prefix, stream.tokens[-LONGEST:])
        self._streams[stream.stream] = _State(segment, prefix)

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        state = self._streams[stream.stream]
        if after:
            tokens = stream.tokens[-MAX_MATCH:] + after
            prefix = state.prefix[-LONGEST - 1 :]
            extend_prefix_hashes(prefix, after)
        else:
            tokens, prefix = stream.tokens, state.prefix
            state.offered = []
        places = self._places(stream, state, context_of(tokens, prefix), limit, not after)
        if not places:
            return EMPTY
        if not after:
            state.offered = places
        return _vote(places, stream.repository, limit, self.index.clock)

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        state = self._streams[stream.stream]
        self.index.append(state.segment, tokens, state.prefix)
        if len(state.prefix) > 4096:
            del state.prefix[:-256]
        state.pointer = self._follow(state, tokens)

    def settle(self, draft: Draft, accepted: int) -> None:
        if isinstance(draft.credit, Segment):
            draft.credit.credit += accepted

    def end(self, stream: StreamView) -> None:
        state = self._streams.pop(stream.stream)
        self.index.close(state.segment)
        if not stream.learn:
            self.index.drop(state.segment.name, state.segment.repository)
            return
        self._prompts.append(state.segment)
        if len(self._prompts) > _PROMPTS:
            oldest = self._prompts.pop(0)
            self.index.drop(oldest.name, oldest.repository)
        if len(stream.tokens) - stream.prompt_length >= _LEAST_OUTPUT:
            # The prompt's segment will be re-used by the next request; its output stays.
            begin = max(0, stream.prompt_length - MAX_MATCH)
            text = np.array(stream.tokens[begin:], np.int32)
            name = f"output {self._outputs % _OUTPUTS}"
            self._outputs += 1
            self.index.drop(name, stream.repository)
            self.index.put(name, stream.repository, "output", text, stream.language)

    def _prompt_segment(self, stream: StreamView, tokens: np.ndarray) -> Segment:
        """A segment holding the prompt: an earlier request's, edited, where they are alike."""
        best, shared = None, len(tokens) // 2
        for segment in self._prompts:
            if segment.repository == stream.repository and segment.pieces:
                alike = _alike(self.index.read(segment), tokens)
                if alike > shared:
                    best, shared = segment, alike
        if best is not None:
            self._prompts.remove(best)
            name = best.name
        else:
            name = f"stream {self._serial}"
            self._serial += 1
        return self.index.put(name, stream.repository, "stream", tokens, stream.language)

    def _places(
        self, stream: StreamView, state: _State, context: Context, limit: int, first: bool
    ) -> list[_Place]:
        """Places whose text ends like the context, with what follows there."""
        pointer = state.pointer if first else None
        places: list[_Place] = []
        for length, position, segment in self.index.find(context):
            pointed = pointer is not None and position == pointer.position
            if pointed:
                pointer = None
            tokens = self.index.continuation(segment, position, limit)
            weight = min(length, 32) + 4.0 * (segment.repository == stream.repository)
            places.append(_Place(weight + 6 * pointed, length, tokens, segment, position, pointed))
        if pointer is not None and (not places or pointer.run >= 8):
            tokens = self.index.continuation(pointer.segment, pointer.position, limit)
            if tokens:
                weight = pointer.synced * 2 + min(pointer.run, 16) / 4
                places.append(
                    _Place(weight, pointer.synced, tokens, pointer.segment, pointer.position, True)
                )
        return places

    def _follow(self, state: _State, tokens: list[int]) -> _Pointer | None:
        """Where the text that was drafted from stands after ``tokens``."""
        old = state.pointer
        if state.offered:
            # Of the places asked this step, the one that foresaw most.
            best, agreed = None, -1
            for place in state.offered:
                count = _agreement(place.tokens, tokens)
                if count > agreed:
                    best, agreed = place, count
            assert best is not None
            same = old is not None and old.position == best.position
            old = _Pointer(
                best.segment, best.position, best.match, old.run if same and old else best.match
            )
        if old is None:
            return None
        source = self.index.continuation(old.segment, old.position, len(tokens) + 8)
        agreed = _agreement(source, tokens)
        if agreed == len(tokens):
            position = self.index.advance(old.segment, old.position, agreed)
            if position < 0:
                return None
            return _Pointer(old.segment, position, old.synced + agreed, old.run + agreed)
        run = (old.run + agreed) // 2
        if run < 4:
            return None
        skip, synced = _resynchronise(source[agreed:], tokens[agreed:])
        position = self.index.advance(old.segment, old.position, agreed + skip)
        return _Pointer(old.segment, position, synced, run) if position >= 0 else None


def _agreement(source: list[int], tokens: list[int]) -> int:
    count = 0
    for one, other in zip(source, tokens, strict=False):
        if one != other:
            break
        count += 1
    return count


def _resynchronise(source: list[int], tokens: list[int]) -> tuple[int, int]:
    """(source tokens to skip, tokens in step again) where ``tokens`` left ``source``: at the next
    place that reads like their last token, else as if each was replaced by one."""
    last = tokens[-1]
    for skip, token in enumerate(source, 1):
        if token == last:
            return skip, 1
    return min(len(tokens), len(source)), 0


def _alike(one: np.ndarray, other: np.ndarray) -> int:
    """Tokens that two texts share at their beginnings and ends."""
    count = min(len(one), len(other))
    differs = one[:count] != other[:count]
    prefix = int(differs.argmax()) if differs.any() else count
    rest = count - prefix
    if rest == 0:
        return prefix
    differs = one[len(one) - rest :] != other[len(other) - rest :]
    return prefix + (rest - 1 - int(np.flatnonzero(differs)[-1]) if differs.any() else rest)


def _vote(places: list[_Place], repository: str | None, limit: int, clock: int) -> Draft:
    """The draft that most weight is behind, token by token; who disagrees has no further say."""
    lead = max(places, key=lambda place: place.weight)
    alive = places
    drafted: list[int] = []
    features: list[tuple[int, ...]] = []
    diverged = 0
    agree, share = len(alive), 3
    unanimous = len(alive) == 1
    first = lead
    for depth in range(limit):
        if not unanimous:
            votes: dict[int, float] = {}
            for place in alive:
                if depth < len(place.tokens):
                    token = place.tokens[depth]
                    votes[token] = votes.get(token, 0.0) + place.weight
            if not votes:
                break
            token = max(votes, key=votes.__getitem__)
            if len(votes) > 1:
                fraction = votes[token] / sum(votes.values())
                share = 2 if fraction >= 0.75 else 1 if fraction >= 0.5 else 0
            else:
                share = 3
            alive = [p for p in alive if depth < len(p.tokens) and p.tokens[depth] == token]
            agree = len(alive)
            if depth >= len(lead.tokens) or lead.tokens[depth] != token:
                lead = max(alive, key=lambda place: place.weight)
            if depth == 0:
                first = lead
            unanimous = agree == 1
        else:
            lead = alive[0]
            if depth >= len(lead.tokens):
                break
            token = lead.tokens[depth]
        length = lead.match + depth
        vote = _COUNT[min(agree, 15)] * 4 + share
        segment = lead.segment
        features.append(
            (
                _LENGTH[length] if length < 129 else 15,
                vote + 16 * (diverged > 0),
                KINDS.index(segment.kind) * 4
                + 2 * lead.pointed
                + (segment.repository == repository),
                _DEPTH[depth] * 3 + min(diverged, 2),
                _COARSE[lead.match] * 16 + vote,
                min(15, (clock - segment.updated).bit_length()),
            )
        )
        drafted.append(token)
        if share < 3:
            diverged += 1
            share = 3
    return Draft("positions", drafted, features, first.segment) if drafted else EMPTY
