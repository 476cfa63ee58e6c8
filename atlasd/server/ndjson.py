"""Lines of JSON as they come, the last of which says what went wrong: the status line is out."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from atlasd.server.body import compact
from atlasd.server.errors import error_body, from_exception

log = logging.getLogger(__name__)


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
            problem = from_exception(error)
            if problem.status == 500:
                log.exception("The lines on %s ended early", path)
            await response.write(compact(error_body(problem, path)) + b"\n")
    return response
