"""Learning in idle time: files what was verified, has the target read, trains, judges, promotes.

All work is cut into units of a few milliseconds; ``idle`` runs them until its time is up, so that
an arriving request waits for one unit at most. What a repository's new rows are worth is bounded:
when it is done there is nothing to do until something new comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import perf_counter

from atlasd.draft.adaptable import Adaptable
from atlasd.draft.cut import Costs
from atlasd.draft.drafter import EMPTY, Draft, Int32, StreamView, VerifiedRows
from atlasd.draft.neural import Neural
from atlasd.learn.candidates import Candidates
from atlasd.learn.files import AdapterFiles
from atlasd.learn.passages import Passage, of_stream
from atlasd.learn.promotion import Promotion
from atlasd.learn.reading import Target, read
from atlasd.learn.repositories import Repositories
from atlasd.learn.repository import Adapted
from atlasd.learn.scoring import Scorer
from atlasd.learn.warmup import Block

LARGEST_HEAD = 16384
"""A static drafter that drafts more tokens than this is not adapted: training would take too
long for idle moments."""


class Learner:
    """The adapters of all repositories. A ``Drafter`` that proposes nothing: it is told of streams
    like the others. Everything runs on the step loop's thread."""

    name = "learner"
    free = False

    def __init__(
        self,
        model: Adaptable,
        neural: Neural,
        costs: Costs,
        *,
        files: AdapterFiles | None = None,
        target: Target | None = None,
        promoted: Callable[[], None] = lambda: None,
        told: Callable[[Int32, Int32], None] = lambda read, chosen: None,
        seed: int = 0,
        now: Callable[[], float] = perf_counter,
    ) -> None:
        """``files``: where to keep what is learned (None: nowhere); ``promoted`` is called before
        a repository's first version is used; ``told`` what the target has said of a text: tokens
        [n + 1], and what it would have said after each but the first [n]; ``now``: seconds on the
        clock that ends a slice of idle time."""
        self.model = model
        self.target = target
        self.repositories = Repositories(model, files)
        self.scorer = Scorer(model, neural, costs)
        self._candidates = Candidates(model, self.scorer, seed)
        self.promotion = Promotion(
            model, self.scorer, self._candidates, self.repositories, promoted
        )
        self._told = told
        self._now = now
        self._work = self._units()
        neural.correction_of = self.promotion.in_use

    @staticmethod
    def can_learn(model: Adaptable) -> bool:
        """Whether training this drafter fits into idle moments."""
        return (model.vocab_size if model.head is None else len(model.head)) <= LARGEST_HEAD

    # What drafting tells and asks

    def begin(self, stream: StreamView) -> None:
        """Nothing is known of the stream yet."""

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        return EMPTY

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        """The stream's end is early enough."""

    def settle(self, draft: Draft, accepted: int) -> None:
        """Nothing was proposed."""

    def end(self, stream: StreamView) -> None:
        rows = len(stream.tokens) - stream.prompt_length
        if stream.learn and rows > 0:
            one = self.repositories.of(stream.repository)
            passages = of_stream(stream.tokens, stream.prompt_length, stream.states)
            # One draw says little of what the target would have said: it is asked.
            one.end(passages, rows, stream.temperature > 0.0 and self._can_read)

    def wish(
        self, repository: str, name: str, kind: str, tokens: Int32, modified: float = 0.0
    ) -> None:
        """A text of a trusted repository came or changed: the target may read it."""
        if self.target is not None:
            self.repositories.of(repository).warmup.wish(name, kind, tokens, modified)

    def unwish(self, repository: str, name: str) -> None:
        """A text is gone."""
        one = self.repositories.get(repository)
        if one is not None:
            one.warmup.drop(name)

    # Idle time

    def idle(self, milliseconds: float) -> bool:
        """Work for at most this long and the rest of a unit; True if more is left to do."""
        end = self._now() + milliseconds / 1e3
        while next(self._work):
            if self._now() >= end:
                return True
        return False

    def _units(self) -> Iterator[bool]:
        """Endless: True after each unit of work, False where there is none."""
        while True:
            worked = False
            for _ in self._task():
                worked = True
                yield True
            if not worked:
                yield False

    def _task(self) -> Iterator[None]:
        """The most useful task, unit by unit; nothing if there is none."""
        for one in self.repositories:
            if not one.loaded:
                yield from self.repositories.load(one)
            elif one.fresh:
                yield from self._file(one, one.fresh.popleft())
            elif one.ended:
                one.cut()
                yield
            elif one.trains and one.owed > 64 and not one.again:
                yield from self._train(one)
            elif (reading := self._reading(one)) is not None:
                yield from reading
            elif one.trains:
                yield from self._train(one)
            else:
                continue
            return
        if (waiting := self.repositories.waiting()) is not None:
            yield from self.repositories.saving(waiting)

    def _file(self, one: Adapted, passage: Passage) -> Iterator[None]:
        """Judge the versions by a passage they have not seen, then keep the passage."""
        yield from self.promotion.judge(one, passage)
        one.file(passage)
        yield

    def _reading(self, one: Adapted) -> Iterator[None] | None:
        """Have the target read what waits; None if nothing does, or it cannot now."""
        if self.target is None or not self._can_read:
            return None
        if one.again:
            return self._read_again(one, self.target)
        block = one.warmup.next()
        return None if block is None else self._read(one, self.target, block)

    def _read(self, one: Adapted, target: Target, block: Block) -> Iterator[None]:
        found = yield from read(target, block)
        one.fresh.extend(found)
        self._tell(found)
        yield

    def _read_again(self, one: Adapted, target: Target) -> Iterator[None]:
        """What the target says now about a passage that it said something else of before, or of
        which only a draw is known."""
        passage, unseen = one.again.popleft()
        found = yield from read(target, Block(passage.tokens, passage.first))
        if not found:
            one.again.append((passage, unseen))
        self._tell(found)
        for now in found:
            if unseen is not False:
                yield from self.promotion.judge(one, now)
            one.file(now, unseen)
        yield

    def _tell(self, found: Iterable[Passage]) -> None:
        for passage in found:
            self._told(passage.tokens[passage.first - 1 :], passage.top[:, 0])

    def _train(self, one: Adapted) -> Iterator[None]:
        """A step of training; now and then a look at what came of it."""
        yield from self._candidates.train(one)
        if self._candidates.due(one):
            found = yield from self._candidates.judge(one)
            if found is not None:
                yield from self.promotion.promote(one, *found)
            yield from self._candidates.renew_head(one)

    # State

    def save(self) -> None:
        """Write everything that has changed to the folder."""
        self.repositories.save()

    def learned(self) -> list[tuple[str, str | None, bytes]]:
        """(kind, repository, payload) for the store: versions and what became of them."""
        return self.repositories.learned()

    def restore(self, repository: str | None, payload: bytes) -> None:
        """Take back what ``learned`` gave; the weights themselves are in the folder."""
        self.repositories.restore(repository, payload)

    def forget(self, repository: str | None) -> None:
        """Drop all that was learned from a repository (None: from all), the files as well."""
        self._give_up()
        self.scorer.forget()
        self.repositories.forget(repository)

    def target_changed(self, identity: str | None = None) -> None:
        """The target's weights are others now (``identity``, if they have one): it reads the newest
        passages again, and what is judged and trained goes by that. The version in use stays until
        it stops paying."""
        self._give_up()
        if identity is not None:
            self.repositories.belong_to(identity)
        for one in self.repositories:
            one.target_changed(reads=self._can_read)

    @property
    def _can_read(self) -> bool:
        """Whether the target can be asked about texts in idle moments."""
        return self.target is not None and self.target.rows > 0

    def _give_up(self) -> None:
        """Do not finish what is being worked on: it may belong to what is gone."""
        self._candidates.forget()
        self._work = self._units()

    @property
    def nbytes(self) -> int:
        """Bytes of rows and weights."""
        return self.scorer.nbytes + sum(one.nbytes for one in self.repositories)
