"""Requests being answered, one per document: a newer one ends the older, or goes on with it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from atlasd.completion.cache import wanted
from atlasd.completion.decoding import Decoding
from atlasd.completion.request import Completion, CompletionRequest


class Superseded(Exception):
    """A newer request for the same document replaced this one."""


@dataclass
class Flight:
    """A request being answered; ``superseded`` when a newer one of its document came. ``taken``
    is what had been typed since the older request, whose decoding this one goes on with."""

    task: asyncio.Task[Completion | None] | None = None
    decoding: Decoding | None = None
    taken: str | None = None
    superseded: bool = False


class Flights:
    """The flights in the air, by document."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def begin(self, request: CompletionRequest) -> Flight:
        """A request begins; the document's previous one ends."""
        flight = Flight()
        if request.document is not None:
            before = self._flights.get(request.document)
            self._flights[request.document] = flight
            if before is not None:
                _hand_over(before, flight, request)
        return flight

    def end(self, request: CompletionRequest, flight: Flight) -> None:
        """A request was answered or given up."""
        if request.document is not None and self._flights.get(request.document) is flight:
            del self._flights[request.document]


def _hand_over(before: Flight, flight: Flight, request: CompletionRequest) -> None:
    """End a flight. If the new text is the old one typed along, its decoding is handed over
    instead of being cancelled."""
    before.superseded = True
    decoding, before.decoding = before.decoding, None
    if before.task is not None:
        before.task.cancel()
    if decoding is None:
        return
    old = decoding.request
    along = request.prefix.startswith(old.prefix) and request.suffix == old.suffix
    if along and request.trim and old.trim and wanted(old) == wanted(request):
        flight.decoding, flight.taken = decoding, request.prefix[len(old.prefix) :]
    else:
        decoding.cancel()
