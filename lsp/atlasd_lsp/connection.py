"""The bridge's connection to the daemon: JSON over its UNIX socket, kept open between requests.

aiohttp is imported on first use, off the event loop's critical path: the editor's handshake must
not wait for it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import aiohttp


class DaemonUnreachable(Exception):
    """Nothing answers on the socket."""


class DaemonRefused(Exception):
    """The daemon answered with an error; the text is the daemon's."""


class Connection:
    """Requests to the daemon. Survives the daemon's restarts: every request
    connects anew where the kept connection is gone."""

    def __init__(self, find_socket: Callable[[], Path]) -> None:
        self._find_socket = find_socket
        self._session: aiohttp.ClientSession | None = None
        self._opened: Path | None = None

    @property
    def socket(self) -> Path:
        """Where the daemon listens now: the next one may be started from another environment."""
        return self._find_socket()

    async def open(self) -> aiohttp.ClientSession:
        """The session of this socket, with the import done in a thread."""
        library = await asyncio.to_thread(_import_aiohttp) if self._session is None else None
        if self._session is None or self._opened != self.socket:
            library = library or _import_aiohttp()
            before, self._opened = self._session, self.socket
            self._session = library.ClientSession(
                connector=library.UnixConnector(str(self._opened), limit=32),
                timeout=library.ClientTimeout(total=None, sock_connect=2),
            )
            if before is not None:
                await before.close()
        assert self._session is not None
        return self._session

    async def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """POST ``body`` (GET without one) and return the answer.

        Cancelling the call closes the connection, which cancels the request in the daemon.
        Raises DaemonUnreachable or DaemonRefused.
        """
        import aiohttp

        session = await self.open()
        method = "GET" if body is None else "POST"
        try:
            async with session.request(method, f"http://localhost{path}", json=body) as response:
                answer = json.loads(await response.read() or b"{}")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unreachable(error) from error
        if response.status >= 400:
            raise DaemonRefused(_message(answer, response.status))
        return answer if isinstance(answer, dict) else {"data": answer}

    async def events(
        self, path: str, body: dict[str, Any] | None = None
    ) -> AsyncIterator[dict[str, Any]]:
        """The server-sent events of a GET (or of a POST with ``body``), as objects."""
        import aiohttp

        session = await self.open()
        method = "GET" if body is None else "POST"
        try:
            async with session.request(method, f"http://localhost{path}", json=body) as response:
                if response.status >= 400:
                    raise DaemonRefused(_message(await response.json(), response.status))
                async for line in response.content:
                    data = line.removeprefix(b"data: ").strip()
                    if data and data != line.strip() and data != b"[DONE]":
                        yield json.loads(data)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unreachable(error) from error

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


def _import_aiohttp() -> Any:
    import aiohttp

    return aiohttp


def _unreachable(error: Exception) -> DaemonUnreachable:
    """In words for whoever sits before the editor."""
    error = getattr(error, "os_error", error)  # aiohttp's wraps the system's
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        return DaemonUnreachable("No atlasd daemon is running; run atlasd start.")
    if isinstance(error, PermissionError):
        return DaemonUnreachable(f"The daemon's socket cannot be opened: {error.strerror}.")
    return DaemonUnreachable("The atlasd daemon ended the connection.")


def _message(answer: object, status: int) -> str:
    if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
        return str(answer["error"].get("message", status))
    return f"the daemon answered {status}"
