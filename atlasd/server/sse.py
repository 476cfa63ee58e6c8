"""Server-sent events: one ``data:`` line per message, pings while there is silence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any

from aiohttp import web

from atlasd.server.body import compact
from atlasd.server.errors import last_words

PING_S = 15.0
"""Silence after which a comment is sent, so that proxies and clients do not give up."""


class EventStream:
    """An open stream of events to one client."""

    def __init__(self, response: web.StreamResponse) -> None:
        self._response = response
        self._last = asyncio.get_running_loop().time()

    async def send(self, value: Any) -> None:
        """One event with ``value`` as compact JSON."""
        await self._write(b"data: " + compact(value) + b"\n\n")

    async def done(self) -> None:
        """OpenAI's end mark."""
        await self._write(b"data: [DONE]\n\n")

    async def _write(self, data: bytes) -> None:
        self._last = asyncio.get_running_loop().time()
        await self._response.write(data)

    async def ping_forever(self) -> None:
        """Send a comment whenever nothing else was sent for ``PING_S``."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self._last + PING_S - loop.time())
            if loop.time() >= self._last + PING_S:
                with contextlib.suppress(ConnectionError):
                    await self._write(b": ping\n\n")


class Opened:
    """What ``event_stream`` gives: the events, and the response to return from the handler."""

    def __init__(self, response: web.StreamResponse, events: EventStream) -> None:
        self.response = response
        self.send = events.send
        self.done = events.done


@contextlib.asynccontextmanager
async def event_stream(request: web.Request, path: str) -> AsyncGenerator[Opened, None]:
    """Answer ``request`` with events. An error in the body becomes the last event, because the
    status line has been sent; a client that has left just ends the stream."""
    response = web.StreamResponse(
        headers={
            "Content-Type": "text/event-stream",
            "Cache-Control": "no-cache",
            "X-Accel-Buffering": "no",
        }
    )
    await response.prepare(request)
    events = EventStream(response)
    pinging = asyncio.create_task(events.ping_forever())
    try:
        yield Opened(response, events)
    except ConnectionError:
        pass
    except Exception as error:
        with contextlib.suppress(ConnectionError):
            await events.send(last_words(error, path))
    finally:
        pinging.cancel()
