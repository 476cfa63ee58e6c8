"""The long-running process: owns the HTTP server, the workspace and the store, and supervises the
engine process. Health answers before any model is looked for. No torch here."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from aiohttp import web

from atlasd import __version__, report
from atlasd.config import Config
from atlasd.engine.client import EngineClient
from atlasd.engine.protocol import SetDrafting
from atlasd.listeners import Lock, Running, listen_on_socket, listen_on_tcp
from atlasd.neighbours import PROGRESS_POLL_S, Neighbours
from atlasd.paths import Paths
from atlasd.server.app import import_handlers, make_app
from atlasd.server.auth import Access, check_bind, host_names, secret_token
from atlasd.server.meter import Meter
from atlasd.server.services import Serving
from atlasd.supervisor import Supervisor

log = logging.getLogger(__name__)

GRACE_S = 2.0
"""How long answers in progress may take once the daemon has been told to stop."""

HOME_CHECK_S = 5.0
"""How often the daemon looks whether it can still be found."""

ENGINE_PATIENCE_S = 2.0
"""How long the engine may take to say what it does: whoever asks the daemon is to hear of it that
the engine is stuck, rather than nothing."""


class Daemon(Neighbours):
    """Everything the server asks for; see ``server.services.Services``."""

    def __init__(self, config: Config, paths: Paths, engine: EngineClient | None = None) -> None:
        self.config = config
        self.meter = Meter()
        self.access: Access | None = None
        self.engine = engine or EngineClient()
        super().__init__(paths, Supervisor(config, paths, self.meter, self.engine))
        self.port: int | None = None
        """The TCP port in use; None where there is none."""
        self._runner: web.AppRunner | None = None
        self._lock: Lock | None = None
        self._stopping = asyncio.Event()
        self._idle: asyncio.Task[None] | None = None

    # Life

    async def run(self) -> None:
        """Serve until told to stop. Raises AtlasdError when it cannot start."""
        self.paths.create()
        self._lock = Lock(self.paths)
        try:
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.stop)
            await self.open()
            # What was imported stays: looking through it again and again for garbage takes tens of
            # milliseconds, in which nothing is answered.
            gc.freeze()
            self.supervisor.start()
            await self._until_stopped(self._lock)
        finally:
            # A second signal ends the process at once.
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().remove_signal_handler(number)
            await self.close()

    async def _until_stopped(self, lock: Lock) -> None:
        """Also end when the folders are gone: nobody could reach this daemon any more, and the
        next one would start beside it."""
        while not await self.stopping_within(HOME_CHECK_S):
            if not lock.in_place:
                log.error("%s is gone; ending", self.paths.runtime)
                return

    async def open(self) -> None:
        """Listen, then open the store and the workspace; no model yet."""
        await self._listen()
        await asyncio.to_thread(_import_the_rest)
        await self.open_neighbours()
        self._idle = asyncio.create_task(self.supervisor.watch_idleness())

    async def _listen(self) -> None:
        settings = self.config.server
        check_bind(settings.host, settings.token)
        token = secret_token(self.paths.data / "token", self.paths.token)
        listeners = [listen_on_socket(self.paths.socket)]
        if settings.port:
            exactly = "server.port" in self.config.explicit
            tcp = listen_on_tcp(settings.host, settings.port, exactly=exactly)
            listeners += tcp
            self.port = tcp[0].getsockname()[1]
            if self.port != settings.port:
                log.warning("Port %d is taken; using %d", settings.port, self.port)
            self.access = Access(
                token=token,
                token_required=settings.token,
                hosts=host_names(settings.host, self.port, settings.allowed_hosts),
                origins=settings.allowed_origins,
            )
        self._runner = web.AppRunner(
            make_app(self), access_log=None, handler_cancellation=True, shutdown_timeout=GRACE_S
        )
        await self._runner.setup()
        for listener in listeners:
            await web.SockSite(self._runner, listener).start()
        Running(
            pid=os.getpid(),
            version=__version__,
            model=self.config.model.name,
            host=settings.host if self.port else None,
            port=self.port,
            socket=str(self.paths.socket),
            started=time.time(),
        ).write(self.paths)
        log.info("atlasd %s listens on %s and port %s", __version__, self.paths.socket, self.port)

    async def close(self) -> None:
        """Stop listening, end the engine, keep what was learned. In that order: what is said last
        is stored."""
        self.stop()
        if self._idle is not None:
            self._idle.cancel()
        # The files are another daemon's if the folder was removed and made anew.
        ours = self._runner is not None and (self._lock is None or self._lock.in_place)
        if ours:
            self.paths.socket.unlink(missing_ok=True)
        if self._runner is not None:
            await self._runner.cleanup()
        await self.supervisor.stop()
        await self.close_neighbours()
        if ours:
            self.paths.daemon_json.unlink(missing_ok=True)
        log.info("atlasd has stopped")

    def stop(self) -> None:
        self._stopping.set()

    async def stopping_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)
        return self._stopping.is_set()

    # The model

    @property
    def state(self) -> str:
        return self.supervisor.state

    @property
    def model_name(self) -> str:
        return self.supervisor.model_name

    @property
    def serving(self) -> Serving | None:
        return self.supervisor.serving

    def use(self) -> contextlib.AbstractAsyncContextManager[Serving]:
        return self.supervisor.use()

    def progress(self) -> dict[str, Any]:
        return self.supervisor.progress()

    async def watch_progress(self) -> AsyncIterator[dict[str, Any]]:
        said: dict[str, Any] | None = None
        stopping = False
        while not stopping:
            now = self.progress()
            if now != said:
                said = now
                yield now
            stopping = await self.stopping_within(PROGRESS_POLL_S)

    async def pause(self) -> None:
        await self.supervisor.pause()

    async def resume(self) -> None:
        await self.supervisor.resume()

    async def set_drafting(self, on: bool) -> None:
        self.engine.send(SetDrafting(on))

    async def engine_status(self) -> dict[str, Any] | None:
        try:
            async with asyncio.timeout(ENGINE_PATIENCE_S):
                status = await self.engine.status()
        except TimeoutError:
            return None
        return None if status is None else msgspec.to_builtins(status)

    async def status(self) -> dict[str, Any]:
        return await report.status(self)

    async def why(self, id: str | None) -> dict[str, Any] | None:
        return await report.why(self, id)

    async def fate(self, id: str, fate: str, accepted_length: int | None) -> None:
        if self.serving is not None:
            await self.serving.completer.fate(id, fate, accepted_length)


def _import_the_rest() -> None:
    """What takes longest to import is not needed to answer health, so it comes after that."""
    import atlasd.completion.completer
    import atlasd.store.database
    import atlasd.workspace.workspace  # noqa: F401

    import_handlers()
