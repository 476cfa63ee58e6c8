"""The bridge's state: one connection, the open roots, what is on screen, requests in flight."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

from atlasd_lsp.connection import Connection, DaemonRefused, DaemonUnreachable
from atlasd_lsp.fates import Told
from atlasd_lsp.launch import launch
from atlasd_lsp.options import Options
from atlasd_lsp.shown import Shown

log = logging.getLogger(__name__)

T = TypeVar("T")

LAUNCH_PAUSE_S = 20.0
"""A daemon that could not be started is not tried again for so long."""

LAUNCH_S = 30.0
"""How long a daemon that was started may take until it answers."""

EDIT_PAUSE_S = 1.0
"""An unsaved buffer is sent once typing has paused for so long."""

MOST_EDITED = 1 << 20
"""The daemon takes in no longer texts."""


class Bridge:
    """What the handlers share. Lives on the event loop of the language server."""

    def __init__(self, find_socket: Callable[[], Path]) -> None:
        self.connection = Connection(find_socket)
        self.options = Options()
        self.editor = ""
        self.roots: list[str] = []
        self.shown = Shown()
        self.in_flight: dict[str, asyncio.Task[Any]] = {}
        self.others_wanted: set[str] = set()
        """Documents whose next request is for several suggestions, whatever it says of itself."""
        self.problem: str | None = None
        self.on_new_daemon: Callable[[], object] = lambda: None
        """Called when a daemon is reached that was not there before."""
        self._opened_at: tuple[int, int] | None = None
        self._launched_at = -LAUNCH_PAUSE_S
        self._launching: asyncio.Task[str | None] | None = None
        self._connecting: asyncio.Task[bool] | None = None
        self._background: set[asyncio.Task[Any]] = set()
        self._edits: dict[str, asyncio.TimerHandle] = {}
        self._passed_on: set[str] = set()
        """Paths of the buffers whose text the daemon was told."""
        self._telling = asyncio.Lock()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something beside the requests; its errors are logged, not raised."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.debug("background work failed: %s", error)

    async def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the daemon; where none answers, start it or wait for its restart, and ask again."""
        if self._socket_identity() != self._opened_at and not await self.connect():
            raise DaemonUnreachable(self.problem or "no daemon")
        try:
            return await self.connection.call(path, body)
        except DaemonUnreachable:
            self._opened_at = None
            if not await self.connect():
                raise DaemonUnreachable(self.problem or "no daemon") from None
        return await self.connection.call(path, body)

    async def connect(self) -> bool:
        """Reach a daemon, starting one if allowed, and tell it the open roots. One at a time."""
        if self._connecting is None or self._connecting.done():
            self._connecting = asyncio.ensure_future(self._connect())
        return await asyncio.shield(self._connecting)

    async def _connect(self) -> bool:
        await self.connection.open()
        status = await self._status()
        if status is None and self._may_launch():
            status = await self._launched()
        if status is None:
            self.problem = self.problem or "No atlasd daemon is running; run atlasd start."
            return False
        self.problem = None
        if (identity := self._socket_identity()) != self._opened_at:
            self._opened_at = identity
            self.on_new_daemon()
            await self.open_roots(self.roots)
        return True

    async def _launched(self) -> dict[str, Any] | None:
        """Start a daemon and wait for it; not for the command, which may stay beside it
        (``atlasd start --foreground``)."""
        self._launched_at, self.problem = time.monotonic(), None
        self._launching = launching = self.spawn(launch(self.options.daemon_command))
        while time.monotonic() - self._launched_at < LAUNCH_S:
            await asyncio.sleep(0.1)
            if (status := await self._status()) is not None:
                return status
            if launching.done() and (problem := launching.result()):
                self.problem = problem
                break
        return None

    def _socket_identity(self) -> tuple[int, int] | None:
        """Differs between two daemons: each makes its own socket file."""
        try:
            found = self.connection.socket.stat()
        except OSError:
            return None
        return (found.st_ino, found.st_ctime_ns)

    def _may_launch(self) -> bool:
        if self._launching is not None and not self._launching.done():
            return False
        waited = time.monotonic() - self._launched_at > LAUNCH_PAUSE_S
        return self.options.start_daemon and waited

    async def _status(self) -> dict[str, Any] | None:
        try:
            return await self.connection.call("/atlasd/v1/status")
        except (DaemonUnreachable, DaemonRefused):
            return None

    async def open_roots(self, roots: list[str]) -> None:
        opened = [{"root": root, "trusted": self.options.trusted} for root in roots]
        if opened:
            await self.quietly("/atlasd/v1/workspace", {"open": opened})

    async def quietly(self, path: str, body: dict[str, Any]) -> None:
        """A call whose failure must not disturb the editor."""
        try:
            await self.connection.call(path, body)
        except (DaemonUnreachable, DaemonRefused) as error:
            log.debug("%s: %s", path, error)

    def tell(self, fates: list[Told]) -> None:
        """Report fates in order, without waiting."""
        if fates:
            self.spawn(self._tell(fates))

    async def _tell(self, fates: list[Told]) -> None:
        # Its waiters come in their order; requests beside each other would not.
        async with self._telling:
            for one in fates:
                body: dict[str, Any] = {"id": one.id, "fate": one.fate}
                if one.accepted_length is not None:
                    body["accepted_length"] = one.accepted_length
                await self.quietly("/atlasd/v1/fate", body)

    def edited(self, path: str, repository: str | None, text: str) -> None:
        """An open buffer changed: pass it on once typing has paused."""
        if handle := self._edits.pop(path, None):
            handle.cancel()
        if len(text) > MOST_EDITED:
            return
        body = {"path": path, "repository": repository, "text": text}
        self._edits[path] = asyncio.get_running_loop().call_later(
            EDIT_PAUSE_S, self._send_edit, path, body
        )

    def closed(self, path: str, repository: str | None) -> None:
        """A buffer is gone, and with it what was never saved of it."""
        if handle := self._edits.pop(path, None):
            handle.cancel()
        if path in self._passed_on:
            self._passed_on.discard(path)
            body = {"path": path, "repository": repository, "text": None}
            self.spawn(self.quietly("/atlasd/v1/edited", body))

    def _send_edit(self, path: str, body: dict[str, Any]) -> None:
        self._edits.pop(path, None)
        self._passed_on.add(path)
        self.spawn(self.quietly("/atlasd/v1/edited", body))

    async def close(self) -> None:
        """Finish what is being told, then let go of the connection."""
        for handle in self._edits.values():
            handle.cancel()
        if self._background:
            await asyncio.wait(list(self._background), timeout=1)
        await self.connection.close()
