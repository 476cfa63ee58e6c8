"""New weights wait for the streams before them, and requests behind them for the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atlasd.engine.protocol import Priority, Reload, Submit
from atlasd.engine.requests import Requests

if TYPE_CHECKING:
    from atlasd.draft.constraint import Constraint


class Reloading:
    """The door to an engine's streams: open, or shut behind a ``Reload``."""

    def __init__(self, engine: Requests) -> None:
        self._engine = engine
        self._reload: Reload | None = None
        self._held: dict[int, tuple[Submit, Constraint | None]] = {}

    def ask(self, reload: Reload) -> Reload | None:
        """Shut the door; returns what was asked before and is now out of date."""
        before, self._reload = self._reload, reload
        return before

    @property
    def due(self) -> bool:
        """All streams before the new weights have ended."""
        return self._reload is not None and not self._engine.busy

    def take(self) -> Reload:
        """The new weights, to be loaded now."""
        assert self._reload is not None
        reload, self._reload = self._reload, None
        return reload

    def release(self) -> None:
        """Let in who waited."""
        held, self._held = self._held, {}
        for submit, constraint in held.values():
            self._engine.submit(submit, constraint)

    def admit(self, submit: Submit, constraint: Constraint | None = None) -> None:
        """Decode a request; behind new weights it waits for them."""
        if self._reload is None:
            self._engine.submit(submit, constraint)
        else:
            self._held[submit.stream] = submit, constraint

    def cancel(self, number: int) -> None:
        """End a stream, inside or outside."""
        if (held := self._held.pop(number, None)) is not None:
            self._engine.refuse(held[0], "cancelled")
        else:
            self._engine.cancel(number)

    def promote(self, number: int, priority: Priority) -> None:
        """Give a stream another priority, inside or outside."""
        if number in self._held:
            self._held[number][0].priority = priority
        else:
            self._engine.promote(number, priority)
