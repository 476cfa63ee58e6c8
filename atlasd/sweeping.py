"""The daemon keeps its cache small, while nobody is being served (``expiry`` says what goes)."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from atlasd import expiry
from atlasd.engine.client import Notice
from atlasd.engine.protocol import DropRepository, Ready
from atlasd.supervisor import Supervisor

if TYPE_CHECKING:
    from atlasd.store.database import Store
    from atlasd.workspace.workspace import Workspace

log = logging.getLogger(__name__)

FIRST_SWEEP_S, SWEEP_EVERY_S = 600.0, 86400.0
"""When the cache is looked through for what nobody opens any more, after the start and from then
on; later if somebody is being served."""

IDLE_CHECK_S = 5.0


class Sweeping:
    """Looks through the cache now and then. What is in use is marked as opened."""

    def __init__(
        self, cache: Path, supervisor: Supervisor, workspace: Workspace, store: Store | None
    ) -> None:
        self._cache, self._supervisor = cache, supervisor
        self._workspace, self._store = workspace, store
        self._served_tokens = 0
        """When the cache was looked through last: a day without any is no day of use."""
        self.mark_opened()
        supervisor.engine.subscribe(self._engine_said)
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        self._task.cancel()

    def mark_opened(self) -> None:
        """What drafting keeps of the tokenizer and the repositories in use is not to be removed."""
        if (tokenizer := self._supervisor.tokenizer) is not None:
            roots = [str(one.root) for one in self._workspace.repositories if one.trusted]
            expiry.mark_opened(self._cache, tokenizer.fingerprint, [None, *roots])

    def _engine_said(self, notice: Notice) -> None:
        if isinstance(notice, Ready):
            self.mark_opened()

    async def _run(self) -> None:
        wait = FIRST_SWEEP_S
        while True:
            await asyncio.sleep(wait)
            wait = IDLE_CHECK_S
            if not self._supervisor.busy:
                self.mark_opened()
                gone = await asyncio.to_thread(self._sweep)
                await self._forget_unopened([one.path for one in gone])
                wait = SWEEP_EVERY_S

    async def _forget_unopened(self, gone: list[Path]) -> None:
        """Of a repository whose tokens went, the engine's index is to hold nothing either."""
        folder = self._cache / "tokens"
        files = [path for path in gone if path.parent == folder]
        if not files or self._store is None:
            return
        from atlasd.workspace.tokencache import root_of

        known = await self._store.roots()
        # With another model it may be in use.
        used = [root_of(file, known) for file in folder.iterdir()]
        used += [str(one.root) for one in self._workspace.repositories]
        for root in {root_of(file, known) for file in files} - {None, *used}:
            self._supervisor.engine.send(DropRepository(root))

    def _sweep(self) -> list[expiry.Item]:
        try:
            if (served := self._supervisor.served_tokens) != self._served_tokens:
                self._served_tokens = served
                expiry.count_day(self._cache)
            expiry.mark_held(self._cache, self._supervisor.engine.pid)
            gone = expiry.sweep(self._cache)
        except OSError as error:
            log.warning("The cache could not be looked through: %s", error)
            return []
        if gone:
            log.info(
                "Removed %.1f MB from the cache that had not been opened for longest: %s",
                sum(one.bytes for one in gone) / 2**20,
                ", ".join(str(one.path.relative_to(self._cache)) for one in gone),
            )
        return gone
