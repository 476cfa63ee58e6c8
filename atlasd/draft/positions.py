"""Drafting from text that was seen before: files, requests, accepted completions, own output."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from atlasd.draft.drafter import Int32, StreamView
from atlasd.draft.edit import WINDOW, Pointer, Rules
from atlasd.draft.masses import AGES, LOST
from atlasd.draft.ngrams import LONGEST, extend_prefix_hashes
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.positions_lookup import MAX_MATCH, Context, context_of
from atlasd.draft.segments import KINDS, Segment

_PROMPTS = 8
_OUTPUTS = 64
_LEAST_OUTPUT = 8
_POINTERS = 3
_LEAST_RUN = 6
_BOUND = 16
"""Tokens at its beginning or end that a text which is like another shares with it."""
_OVER = 4
"""Streams that are put away together: what that needs has left the caches between two streams."""
_ALIKE = 0.9
"""Share of a prompt that an earlier one must have for no other to be looked at."""


class Place(NamedTuple):
    """A place to draft from and the text that follows it."""

    match: int
    """Tokens before it that are the stream's last, up to 64; while lost, the tokens that were
    accepted from here before, halved by every gap."""
    kind: int
    """0..63: kind of segment * 4, then, in step, + 2 if it continues the last draft + 1 if of the
    stream's repository. Lost: + 16, + 32 in a gap of one token, + 2 if one token agrees again, + 1
    for the guess that text was inserted."""
    tokens: list[int]
    segment: Segment
    position: int
    rank: int = 0
    """In the order in which places were found, see ``masses``."""
    age: int = 0
    """Bits of the number of changes to the index since its segment's last one."""


class _Prompt(NamedTuple):
    """A stream that is over, whose prompt the next one may share."""

    segment: Segment
    head: bytes
    """Its first tokens as they lie in memory."""
    tail: bytes
    """Its last ones."""

    def shared(self, head: bytes, tail: bytes) -> bool:
        """Whether a text with these ends may be like it."""
        return head.startswith(self.head) or tail.endswith(self.tail)


@dataclass(slots=True)
class _State:
    segment: Segment
    prefix: list[int]
    pointers: list[Pointer] = field(default_factory=list)
    offered: list[Place] = field(default_factory=list)


class Positions:
    """Finds the places whose text may go on as a stream will, over a ``PositionIndex``."""

    def __init__(self, index: PositionIndex) -> None:
        self.index = index
        self._streams: dict[int, _State] = {}
        self._over: list[tuple[StreamView, _State]] = []
        self._prompts: list[_Prompt] = []
        self._serial = 0
        self._outputs = 0
        self.rules = Rules()

    def begin(
        self, stream: StreamView, tokens: Int32 | None = None, *, hashed: bool = True
    ) -> None:
        """``tokens`` are ``stream.text()``, where the caller has them as an array; ``hashed``
        False: it keeps the prefix hashes and asks for no places."""
        if tokens is None:
            tokens = stream.text()
        segment = self._prompt_segment(stream, tokens)
        if stream.prediction is not None and len(stream.prediction):
            # Behind the prompt's end, so that the first look-up already finds its beginning.
            expected = np.concatenate([tokens[-LONGEST:], stream.prediction]).astype(np.int32)
            name = f"prediction {stream.stream}"
            self.index.put(name, stream.repository, "stream", expected, stream.language)
        prefix = [0]
        if hashed:
            extend_prefix_hashes(prefix, stream.last(LONGEST))
        self._streams[stream.stream] = _State(segment, prefix)

    def places(self, stream: StreamView, after: list[int], limit: int) -> list[Place]:
        """Places whose text ends like ``stream.tokens + after``, with at most ``limit`` tokens of
        what follows there; none is empty."""
        state = self._streams[stream.stream]
        if after:
            tokens = stream.last(MAX_MATCH) + after
            prefix = state.prefix[-LONGEST - 1 :]
            extend_prefix_hashes(prefix, after)
            return self._find(stream, context_of(tokens, prefix), [], limit)
        context = context_of(stream.last(MAX_MATCH), state.prefix)
        state.offered = self._find(stream, context, state.pointers, limit)
        return state.offered

    def observe(self, stream: StreamView, tokens: list[int]) -> None:
        """Tokens were verified (and stand in ``stream.tokens``)."""
        state = self._streams[stream.stream]
        self.index.append(state.segment, tokens, state.prefix)
        if len(state.prefix) > 4096:
            del state.prefix[:-256]
        self._follow(state, tokens, self.rules if stream.learn else None)
        state.offered = []

    def end(self, stream: StreamView) -> None:
        state = self._streams.pop(stream.stream)
        if stream.learn and self.index.holds(state.segment):
            self._over.append((stream, state))
        else:
            self._finish(stream, state)

    def finish(self) -> bool:
        """Put away the streams that are over; True if there were any. An idle moment is early
        enough, or the beginning of one that resembles them: until then they are found where they
        stand."""
        over, self._over = self._over, []
        for stream, state in over:
            self._finish(stream, state)
        if over:
            self.index.ask_for_memory()
        return bool(over)

    def _finish(self, stream: StreamView, state: _State) -> None:
        segment = state.segment
        self.index.close(segment)
        if stream.prediction is not None:
            self.index.drop(f"prediction {stream.stream}", stream.repository)
        if not stream.learn or not self.index.holds(segment):
            self.index.release(segment)
            return
        self._prompts.append(self._bounds(segment))
        if len(self._prompts) > _PROMPTS:
            oldest = self._prompts.pop(0).segment
            self.index.drop(oldest.name, oldest.repository)
        if len(stream.tokens) - stream.prompt_length >= _LEAST_OUTPUT:
            # The prompt's segment will be re-used by the next request; its output stays.
            begin = max(0, stream.prompt_length - MAX_MATCH)
            text = np.array(stream.since(begin), np.int32)
            name = f"output {self._outputs % _OUTPUTS}"
            self._outputs += 1
            self.index.drop(name, stream.repository)
            self.index.put(name, stream.repository, "output", text, stream.language)

    def _bounds(self, segment: Segment) -> _Prompt:
        return _Prompt(segment, *self.index.ends(segment, _BOUND))

    def segment_of(self, stream: StreamView) -> Segment:
        """The segment that holds a running stream's prompt and output."""
        return self._streams[stream.stream].segment

    def _prompt_segment(self, stream: StreamView, tokens: np.ndarray) -> Segment:
        """A segment holding the prompt: an earlier request's, edited, where they are alike."""
        best, shared = None, len(tokens) // 2
        head, tail = tokens[:_BOUND].tobytes(), tokens[-_BOUND:].tobytes()
        if len(self._over) >= _OVER or any(
            self._bounds(state.segment).shared(head, tail) for _, state in self._over
        ):
            self.finish()
        for known in reversed(self._prompts):
            if not known.shared(head, tail):
                continue
            segment = known.segment
            if segment.repository == stream.repository and segment.length > shared:
                alike = _alike(self.index.read(segment), tokens)
                if alike > shared:
                    best, shared = known, alike
                    if alike > _ALIKE * len(tokens):
                        break
        if best is not None:
            self._prompts.remove(best)
            name = best.segment.name
        else:
            name = f"stream {self._serial}"
            self._serial += 1
        return self.index.put(
            name, stream.repository, "stream", tokens, stream.language, grows=True
        )

    def _find(
        self, stream: StreamView, context: Context, pointers: list[Pointer], limit: int
    ) -> list[Place]:
        places: list[Place] = []
        found = self.index.find(context)
        pointed = {pointer.position for pointer in pointers if not pointer.gap}
        for length, position, segment in found:
            tokens = self.index.continuation(segment, position, limit)
            if tokens:
                kind = KINDS.index(segment.kind) * 4 + 2 * (position in pointed)
                kind += segment.repository == stream.repository
                places.append(Place(length, kind, tokens, segment, position))
                pointed.discard(position)
        for pointer in pointers:
            if pointer.gap or pointer.position in pointed:
                places += self._pointed(stream, pointer, limit)
        clock = self.index.clock
        return [
            place._replace(
                rank=LOST if place.kind >= 16 else min(rank, LOST - 1),
                age=min((clock - place.segment.updated).bit_length(), AGES - 1),
            )
            for rank, place in enumerate(places)
        ]

    def _pointed(self, stream: StreamView, pointer: Pointer, limit: int) -> list[Place]:
        segment, position = pointer.segment, pointer.position
        tokens = self.index.continuation(segment, position, limit + WINDOW)
        kind = KINDS.index(segment.kind) * 4
        if not pointer.gap:
            kind += 2 + (segment.repository == stream.repository)
            tokens = tokens[:limit]
            return [Place(pointer.synced, kind, tokens, segment, position)] if tokens else []
        places = []
        kind += 16 + 32 * (len(pointer.gap) == 1)
        go_on = tokens[pointer.skipped :][:limit]
        if go_on:
            lost = kind + 2 * (pointer.synced > 0)
            places.append(Place(pointer.run, lost, go_on, segment, position))
        if not pointer.synced and tokens:
            places.append(Place(pointer.run, kind + 1, tokens[:limit], segment, position))
        return places

    def _follow(self, state: _State, tokens: list[int], rules: Rules | None) -> None:
        """Move the pointers over ``tokens``; take up places that foresaw them."""
        pointers: list[Pointer] = []
        standing: set[int] = set()
        for pointer in state.pointers:
            if self._move(pointer, tokens, rules) and pointer.position not in standing:
                standing.add(pointer.position)
                pointers.append(pointer)
        for place in state.offered:
            if place.kind >= 16:
                continue
            agreed = _agreement(place.tokens, tokens)
            if agreed and place.match + agreed >= _LEAST_RUN:
                pointer = Pointer(place.segment, place.position, place.match, place.match)
                if self._move(pointer, tokens, rules) and pointer.position not in standing:
                    standing.add(pointer.position)
                    pointers.append(pointer)
        if len(pointers) > _POINTERS:
            pointers.sort(key=_run, reverse=True)
            del pointers[_POINTERS:]
        state.pointers = pointers

    def _move(self, pointer: Pointer, tokens: list[int], rules: Rules | None) -> bool:
        """Advance over verified tokens, past mismatches too; False where it leads nowhere."""
        source = self.index.continuation(
            pointer.segment, pointer.position, pointer.skipped + len(tokens) + WINDOW
        )
        count = pointer.move(source, tokens, rules)
        if count < 0:
            return False
        pointer.position = self.index.advance(pointer.segment, pointer.position, count)
        return pointer.position >= 0


def _run(pointer: Pointer) -> int:
    return pointer.run


def _agreement(source: list[int], tokens: list[int]) -> int:
    count = 0
    for one, other in zip(source, tokens, strict=False):
        if one != other:
            break
        count += 1
    return count


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
