"""Speculating ahead: while a suggestion is read, the one that would follow it is decoded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from atlasd.completion.cache import wanted
from atlasd.completion.decoding import Decoded, Decoding
from atlasd.completion.request import CompletionRequest

PAUSE_S = 0.05
"""Somebody who goes on typing within this time is not reading."""


class Ahead:
    """At most one follow-up is decoded, at the lowest priority, and only until something else is
    asked for. ``start`` begins a decoding, or does not where the engine would have to be started
    for it; ``finished`` is told what came of it."""

    def __init__(
        self,
        start: Callable[[CompletionRequest], Decoding | None],
        finished: Callable[[Decoding, Decoded], object],
        pause_s: float = PAUSE_S,
    ) -> None:
        self._start = start
        self._finished = finished
        self._pause_s = pause_s
        self._request: CompletionRequest | None = None
        self._decoding: Decoding | None = None
        self._task: asyncio.Task[None] | None = None

    def follow(self, request: CompletionRequest, text: str, replace_right: int) -> None:
        """Soon decode what would follow if ``text`` were accepted for ``request``."""
        if request.suffix.partition("\n")[0][replace_right:].strip():
            # In the middle of a line the next thing is rarely typed where the suggestion ends.
            return
        following = replace(
            request,
            prefix=request.prefix + text,
            suffix=request.suffix[replace_right:],
            invoked=False,
            max_ms=0.0,
        )
        if self._request is not None and self._typed_along(self._request, following) == "":
            return
        self.cancel()
        self._request = following
        self._task = asyncio.create_task(self._run(following))

    def take(self, request: CompletionRequest) -> tuple[Decoding, str] | None:
        """The follow-up being decoded, if it is for this place or one typed along from it, and
        what has been typed since. It is promoted, and now its taker's to cancel."""
        if self._request is None or self._decoding is None or self._decoding.done:
            return None
        typed = self._typed_along(self._request, request)
        if typed is None:
            return None
        decoding, self._decoding, self._request = self._decoding, None, None
        if self._task is not None:
            # Its taker sees to the end of it; ``finished`` would be a second time.
            self._task.cancel()
        decoding.promote()
        return decoding, typed

    def cancel(self) -> None:
        """Something else is asked for."""
        if self._task is not None:
            self._task.cancel()
        if self._decoding is not None:
            self._decoding.cancel()
        self._task = self._decoding = self._request = None

    @staticmethod
    def _typed_along(ahead: CompletionRequest, request: CompletionRequest) -> str | None:
        if wanted(ahead) != wanted(request) or ahead.suffix != request.suffix:
            return None
        if not request.prefix.startswith(ahead.prefix):
            return None
        return request.prefix[len(ahead.prefix) :]

    async def _run(self, request: CompletionRequest) -> None:
        await asyncio.sleep(self._pause_s)
        self._decoding = decoding = self._start(request)
        if decoding is None:
            return
        try:
            decoded = await decoding.result()
        except Exception:  # nobody asked for it yet, so nobody is to be told
            return
        self._finished(decoding, decoded)
