"""What is learned from a workspace, taken in between steps so that no stream is delayed by it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from atlasd.draft.registry import Drafting, as_tokens
from atlasd.engine.calibration import KIND
from atlasd.engine.protocol import AddSegment, DropRepository, DropSegment, Restore

log = logging.getLogger(__name__)

Later = AddSegment | DropSegment | DropRepository | Restore
"""Messages that can wait until no stream is delayed by them. Their order is kept."""


class Backlog:
    """Messages that wait, and the learned state that newer drafters begin with.

    ``interrupted`` tells that somebody waits; ``forgotten`` is called when a repository must
    leave no trace.
    """

    def __init__(
        self,
        restored: Iterable[Restore],
        interrupted: Callable[[], bool],
        forgotten: Callable[[], None],
    ) -> None:
        self._restored = {(item.kind, item.repository): item for item in restored}
        self._interrupted = interrupted
        self._forgotten = forgotten
        self._waiting: deque[Later] = deque()
        self._adding: Iterator[None] | None = None
        """What is left of a segment that is taken in piece by piece."""

    def __bool__(self) -> bool:
        return bool(self._waiting) or self._adding is not None

    def put(self, message: Later) -> None:
        """Take this in later."""
        self._waiting.append(message)

    def keep(self, kind: str, repository: str | None, payload: bytes) -> None:
        """Drafters that begin from now on are given this."""
        self._restored[kind, repository] = Restore(kind, repository, payload)

    def leave_off(self) -> None:
        """The drafters end; what is left of a segment is not for those that follow."""
        self._adding = None

    def restore(self, drafting: Drafting) -> None:
        """Give all learned state to drafters that begin."""
        for item in self._restored.values():
            drafting.restore(item.kind, item.repository, item.payload)

    def work(self, most: int, drafting: Drafting | None) -> bool:
        """Take in at most so many messages or pieces; True if drafters may have learned."""
        learned = False
        for _ in range(most):
            if not self:
                break
            what = "a segment" if self._adding else type(self._waiting[0]).__name__
            try:
                if self._adding is None:
                    learned |= self._take(self._waiting.popleft(), drafting)
                elif next(self._adding, self._adding) is not None:
                    self._adding = None
            except Exception:
                log.exception("%s could not be learned from", what)
                self._adding = None
            if self._interrupted():
                break
        return learned

    def _take(self, message: Later, drafting: Drafting | None) -> bool:
        if isinstance(message, Restore):
            self._restored[message.kind, message.repository] = message
        elif isinstance(message, DropRepository):
            for kind, repository in list(self._restored):
                if kind != KIND and message.repository in (None, repository):
                    del self._restored[kind, repository]
            self._forgotten()
        if drafting is None:
            return False
        match message:
            case AddSegment():
                self._adding = drafting.adding(
                    message.segment,
                    message.repository,
                    message.kind,
                    as_tokens(message.tokens),
                    message.language,
                    message.modified,
                )
            case DropSegment():
                drafting.drop_segment(message.segment, message.repository)
            case DropRepository():
                drafting.drop_repository(message.repository)
            case Restore():
                drafting.restore(message.kind, message.repository, message.payload)
        return True
