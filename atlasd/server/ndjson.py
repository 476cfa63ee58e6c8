"""Lines of JSON as they come, the last of which says what went wrong: the status line is out."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from atlasd.server.body import compact
from atlasd.server.errors import last_words


async def send_lines(
    request: web.Request, lines: AsyncIterator[dict[str, Any]], path: str
) -> web.StreamResponse:
    """Answer with a line for every object. ``path`` decides the shape of an error; a client that
    has left just ends it."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        try:
            async for line in lines:
                await response.write(compact(line) + b"\n")
        except ConnectionError:
            raise
        except Exception as error:
            await response.write(compact(last_words(error, path)) + b"\n")
    return response
