"""What became of suggestions: kept in the store, and learned from where they were accepted."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import OrderedDict
from functools import partial
from typing import cast

import numpy as np

from atlasd.completion.ports import Engine, Store, TextTokenizer
from atlasd.completion.record import Given
from atlasd.engine.protocol import AddSegment
from atlasd.errors import RequestError
from atlasd.store.rows import Fate
from atlasd.workspace.secrets import mask

log = logging.getLogger(__name__)

FATES = ("shown", "accepted", "accepted_word", "accepted_line", "dismissed", "superseded")
REMEMBERED = 512

# What is taken where a client (Tabby's) does not tell the length.
_FIRST_LINE = re.compile(r"\s*[^\n]*")
_FIRST_WORD = re.compile(r"\s*(\w+|[^\w\s]+)")


class Fates:
    """The suggestions given out last, and what is heard of them."""

    def __init__(self, engine: Engine, tokenizer: TextTokenizer, store: Store | None) -> None:
        self._engine = engine
        self._tokenizer = tokenizer
        self._store = store
        self._given: OrderedDict[str, Given] = OrderedDict()
        self._writes: set[asyncio.Task[None]] = set()

    def hand_out(self, given: Given) -> None:
        """A client has it now. What was only typed along is stored when somebody reports on it."""
        self._given[given.completion.id] = given
        while len(self._given) > REMEMBERED:
            self._given.popitem(last=False)
        if given.completion.source != "type-through":
            self._write(given)

    def find(self, id: str | None) -> Given | None:
        """The suggestion of that id, or the last one."""
        if id is not None:
            return self._given.get(id)
        return next(reversed(self._given.values()), None)

    async def tell(self, id: str, fate: str, accepted_length: int | None) -> None:
        """Keep a fate; see ``Completer.fate``. Raises RequestError if there is no such fate."""
        if fate not in FATES:
            raise RequestError(f"{fate!r} is no fate.", f"There are {', '.join(FATES)}.")
        given = self._given.get(id)
        if given is not None:
            if fate.startswith("accepted"):
                self._learn(given, fate, accepted_length)
            if (writing := self._write(given)) is not None:
                await writing
        if self._store is not None:
            await self._store.set_fate(id, cast(Fate, fate), accepted_length)

    def clear(self) -> None:
        self._given.clear()

    def _write(self, given: Given) -> asyncio.Task[None] | None:
        """Store a suggestion, behind the answer's back."""
        if self._store is None or given.stored or not given.trusted:
            return None
        given.stored = True
        task = asyncio.create_task(self._store.add_completion(given.row()))
        self._writes.add(task)
        task.add_done_callback(partial(self._written, given))
        return task

    def _written(self, given: Given, task: asyncio.Task[None]) -> None:
        self._writes.discard(task)
        if task.cancelled():
            given.stored = False
        elif (error := task.exception()) is not None:
            # The next fate that is told of it tries again.
            given.stored = False
            log.warning("A suggestion could not be stored: %s", error)

    def _learn(self, given: Given, fate: str, length: int | None) -> None:
        """What was accepted is drafted from: it becomes a segment, grown with each further part."""
        text = given.completion.text[: _taken(given.completion.text, fate, length)]
        if not given.trusted or given.origin.repository is None or not text.strip():
            return
        tokens = self._tokenizer.encode(mask(given.request.prefix + text))
        self._engine.send(
            AddSegment(
                segment=f"accepted/{given.completion.id}",
                repository=given.origin.repository,
                kind="accepted",
                tokens=np.array(tokens, "<i4").tobytes(),
                language=given.origin.language.id,
            )
        )


def _taken(text: str, fate: str, length: int | None) -> int:
    """How much of a text was accepted, as far as it was told."""
    if fate == "accepted":
        return len(text)
    if length is not None:
        return max(0, length)
    part = _FIRST_LINE if fate == "accepted_line" else _FIRST_WORD
    found = part.match(text)
    return found.end() if found else len(text)
