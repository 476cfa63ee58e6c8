"""What the engine learned, kept in the store and given back at the next start."""

from __future__ import annotations

import logging
import os
import platform
from typing import TYPE_CHECKING

from atlasd.engine.protocol import Learned, Restore
from atlasd.errors import AtlasdError

if TYPE_CHECKING:
    from atlasd.engine.client import EngineClient
    from atlasd.models.locate import ModelFiles
    from atlasd.models.tokenizer import Tokenizer
    from atlasd.store.database import Store

log = logging.getLogger(__name__)

COSTS = "costs"
"""The kind of learned state that belongs to the machine rather than to a repository."""


class Keeper:
    """Stands between one model's engine and the store. What was learned fits no other model."""

    def __init__(self, store: Store, files: ModelFiles, tokenizer: Tokenizer) -> None:
        self._store = store
        self._key = f"{files.identity}-{tokenizer.fingerprint}"

    async def restore(self, engine: EngineClient) -> None:
        """Give the engine everything that was kept for this model, before it starts: what it
        measured is of use to its loading. Without a store that can be read it begins anew."""
        try:
            for row in await self._store.learned(self._key):
                engine.send(Restore(row.kind, row.repository, row.payload))
            if (costs := await self._store.costs(machine(), self._key)) is not None:
                engine.send(Restore(COSTS, None, costs))
        except AtlasdError as error:
            log.error("What was learned could not be read: %s", error)

    async def keep(self, learned: Learned) -> None:
        """Store one piece; a store that cannot is told in the log, and learning goes on."""
        from atlasd.store.rows import LearnedRow

        try:
            if learned.kind == COSTS:
                await self._store.save_costs(machine(), self._key, learned.payload)
            else:
                row = LearnedRow(learned.kind, learned.repository, self._key, learned.payload)
                await self._store.save_learned(row)
        except AtlasdError as error:
            log.error("What was learned could not be kept: %s", error)


def machine() -> str:
    """Names this machine for what was measured on it."""
    return f"{platform.node()}-{platform.machine()}-{os.cpu_count()}"
