"""Which version drafts: promoted where it gains, rolled back where it stops, back when it pays."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from atlasd_kernels.cpu.correction import LowRank

from atlasd.draft.adaptable import Adaptable
from atlasd.draft.lookahead import Chains
from atlasd.learn.adapter import Adapter
from atlasd.learn.candidates import Candidates
from atlasd.learn.gate import Watch
from atlasd.learn.passages import Passage
from atlasd.learn.repositories import Repositories
from atlasd.learn.repository import Adapted
from atlasd.learn.scoring import Scorer

log = logging.getLogger(__name__)


class Promotion:
    """The versions in use of all repositories."""

    def __init__(
        self,
        model: Adaptable,
        scorer: Scorer,
        candidates: Candidates,
        repositories: Repositories,
        promoted: Callable[[], None],
    ) -> None:
        """``promoted`` is called before a repository's first version is used."""
        self._model = model
        self._scorer = scorer
        self._candidates = candidates
        self._repositories = repositories
        self._promoted = promoted

    def in_use(self, repository: str | None) -> Chains | None:
        """The static drafter with a repository's version; None: there is none."""
        one = self._repositories.get(repository)
        live = one.versions.live if one is not None else None
        if live is None:
            return None
        if live.corrected is None:
            live.corrected = self._corrected(live.adapter)
        return live.corrected

    def judge(self, one: Adapted, passage: Passage) -> Iterator[None]:
        """Note how the versions do on a passage they have not seen; go back to another where the
        one in use does not pay."""
        live, good = one.versions.live, one.versions.good
        if live is None and good is None:
            return
        states = yield from self._scorer.states(passage)
        played = []
        for version in (None, live, good):
            played.append(self._scorer.played(one, passage, states, version))
            yield
        one.watch.note(*played)
        if live is not None and not one.watch.pays:
            log.info("adapter %d of %s is rolled back", live.number, one.repository)
            one.versions.roll_back(to_good=one.watch.good_pays)
            self._candidates.restart(one)
            yield from self._changed(one)
        elif live is None and one.watch.good_is_back:
            one.versions.reinstate()
            yield from self._changed(one)

    def promote(self, one: Adapted, candidate: Adapter, gain: float) -> Iterator[None]:
        """Use the candidate from now on; ``gain`` is the lower confidence bound of the share of
        time it saves."""
        if one.versions.live is None:
            self._promoted()
        version = one.versions.promote(candidate, gain)
        version.corrected = self._corrected(candidate)
        log.info("adapter %d of %s saves %.1f %%", version.number, one.repository, 100 * gain)
        yield from self._changed(one)

    def _changed(self, one: Adapted) -> Iterator[None]:
        one.watch = Watch()
        yield
        yield from self._repositories.saving_versions(one)

    def _corrected(self, adapter: Adapter) -> Chains:
        return self._model.corrected(
            LowRank(
                adapter.head,
                adapter.down,
                adapter.up,
                adapter.last,
                adapter.before,
                adapter.bias[adapter.head],
            )
        )
