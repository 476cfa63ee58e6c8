"""The model's life as the daemon sees it: found, loading, ready, unloaded when idle, paused."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from atlasd.config import Config
from atlasd.engine.client import EngineClient, Notice, Stopped
from atlasd.engine.protocol import Failed, Learned, Load, Loading, Ready
from atlasd.errors import AtlasdError, EngineError
from atlasd.keeper import Keeper
from atlasd.paths import Paths
from atlasd.server.errors import HTTPError
from atlasd.server.meter import Meter
from atlasd.server.services import Serving

if TYPE_CHECKING:
    from atlasd.models.locate import ModelFiles
    from atlasd.models.tokenizer import Tokenizer
    from atlasd.store.database import Store
    from atlasd.workspace.workspace import Workspace

log = logging.getLogger(__name__)

IDLE_CHECK_S = 1.0


class Supervisor:
    """Owns the engine client and what goes with a loaded model. Lives on the event loop."""

    def __init__(self, config: Config, paths: Paths, meter: Meter, engine: EngineClient) -> None:
        self.engine = engine
        self.serving: Serving | None = None
        self.files: ModelFiles | None = None
        self.tokenizer: Tokenizer | None = None
        self.paused = False
        self.in_use = 0
        self._config = config
        self._paths = paths
        self._meter = meter
        self._store: Store | None = None
        self._workspace: Workspace | None = None
        self._keeper: Keeper | None = None
        self._preparing: Loading | None = Loading("starting", 0.0)
        self._failure: AtlasdError | None = None
        self._bringing_up: asyncio.Task[None] | None = None
        self._errands: set[asyncio.Task[None]] = set()
        self._last_used = time.monotonic()
        engine.subscribe(self._heard)

    # What can be seen

    @property
    def state(self) -> str:
        if self.paused:
            return "paused"
        if self._failure is not None:
            return "failed"
        if self._preparing is not None:
            return "loading"
        return "ready" if self.engine.state == "ready" and self.serving else self.engine.state

    @property
    def model_name(self) -> str:
        return self.files.name if self.files is not None else self._config.model.name

    @property
    def failure(self) -> AtlasdError | None:
        return self._failure or (self.engine.failure if self.state == "failed" else None)

    def progress(self) -> dict[str, Any]:
        """``{state, stage, fraction}``, and ``error`` with ``hint`` where loading failed."""
        state = self.state
        loading = self._preparing or self.engine.loading
        said: dict[str, Any] = {"state": state, "stage": state, "fraction": 1.0}
        if state == "loading":
            said.update(stage=loading.stage, fraction=loading.fraction)
        if state == "failed" and self.failure is not None:
            said.update(fraction=0.0, error=self.failure.message, hint=self.failure.hint)
        return said

    # Up and down

    def attach(self, store: Store | None, workspace: Workspace | None) -> None:
        """Give the neighbours; before ``start``."""
        self._store = store
        self._workspace = workspace

    def start(self) -> None:
        """Begin to bring the model up; returns at once."""
        if self._bringing_up is None or self._bringing_up.done():
            self._failure = None
            self._preparing = Loading("finding the model", 0.0)
            self._bringing_up = asyncio.create_task(self._bring_up())

    async def stop(self) -> None:
        """End the engine; what it learned is in the store when this returns."""
        self.engine.accepting = False
        if self._bringing_up is not None:
            self._bringing_up.cancel()
            await asyncio.gather(self._bringing_up, return_exceptions=True)
        await self.engine.stop()
        while self._errands:
            await asyncio.gather(*self._errands, return_exceptions=True)

    async def pause(self) -> None:
        """Give the model's memory back and answer nothing until ``resume``."""
        self.paused = True
        # A request that passed the door before must not bring the model back behind it.
        self.engine.accepting = False
        if self._bringing_up is not None:
            self._bringing_up.cancel()
        if self._workspace is not None:
            self._workspace.pause()
        if self.serving is not None:
            self.serving.completer.clear()
        await self.engine.stop()

    async def resume(self) -> None:
        """Serve again; also tries again after a failure."""
        if not self.paused and self.state != "failed":
            return
        self.paused = False
        self.engine.accepting = True
        if self._workspace is not None:
            self._workspace.resume()
        self.start()

    async def watch_idleness(self) -> None:
        """Unload the model whenever nobody has asked for anything long enough."""
        limit = self._config.engine.idle_minutes * 60
        while limit > 0:
            await asyncio.sleep(min(IDLE_CHECK_S, limit))
            used = max(self._last_used, self.engine.last_used)
            if self.state == "ready" and not self.busy and time.monotonic() - used > limit:
                log.info("Unloading the model after %.3g idle minutes", limit / 60)
                await self.engine.stop()

    @property
    def served_tokens(self) -> int:
        """How much text was asked for since the daemon's start."""
        return self._meter.output_tokens

    @property
    def busy(self) -> bool:
        """Whether somebody is being served."""
        return self.in_use > 0 or self.engine.active > 0

    @asynccontextmanager
    async def use(self) -> AsyncIterator[Serving]:
        """The ready model for one request; see ``Services.use``."""
        self.in_use += 1
        try:
            yield await self._ready()
        finally:
            self.in_use -= 1
            self._last_used = time.monotonic()

    async def _ready(self) -> Serving:
        if self.state == "stopped":
            self.start()
        deadline = time.monotonic() + self._config.server.load_wait_s
        while (state := self.state) != "ready":
            if state == "paused":
                raise HTTPError(503, "atlasd is paused.", "Run: atlasd resume", code="paused")
            if state == "failed":
                failure = self.failure or EngineError("The model could not be loaded.")
                raise HTTPError(503, failure.message, failure.hint, code="model_failed")
            if time.monotonic() > deadline:
                stage = self.progress()["stage"]
                raise HTTPError(
                    503, f"Loading model ({stage}).", code="model_loading", retry_after=5
                )
            await asyncio.sleep(0.02)
        assert self.serving is not None
        return self.serving

    async def _bring_up(self) -> None:
        try:
            if self.files is None or self.tokenizer is None:
                self.files = await asyncio.to_thread(self._find)
                self._preparing = Loading("reading the tokenizer", 0.0)
                self.tokenizer = await asyncio.to_thread(_read_tokenizer, self.files)
                self.engine.load = self._load(self.files, self.tokenizer)
            if self._keeper is None and self._store is not None:
                keeper = Keeper(self._store, self.files, self.tokenizer)
                await keeper.restore(self.engine)
                # Only now: a pause may have come in between, and then it is still to be restored.
                self._keeper = keeper
            await self.engine.start()
            if self._workspace is not None:
                tokenizer = self.tokenizer
                self._workspace.use_tokenizer(tokenizer.encode_batch, tokenizer.fingerprint)
            self._preparing = None
            ready = await self.engine.wait_ready()
            if self.serving is None:
                self.serving = self._serve(self.files, self.tokenizer, ready)
            log.info("Serving %s on %s", self.model_name, ready.backend)
        except AtlasdError as error:
            self._failed(error)
        except Exception as error:
            log.exception("Bringing the model up failed")
            self._failed(EngineError(f"The model could not be loaded: {error}.", "See the log."))

    def _failed(self, error: AtlasdError) -> None:
        log.error("%s", error)
        self._preparing = None
        self._failure = error
        if self.engine.state in ("loading", "ready"):
            self._run(self.engine.stop())

    def _find(self) -> ModelFiles:
        from atlasd.models.locate import find_model

        return find_model(self._config.model.name, self._paths, self._found)

    def _found(self, stage: str, fraction: float) -> None:
        # From the finding thread: one assignment, so nothing needs to be locked.
        self._preparing = Loading(stage, fraction)

    def _load(self, files: ModelFiles, tokenizer: Tokenizer) -> Load:
        settings = self._config.model
        return Load(
            model=None if files.source == "bundled" else str(files.path),
            dtype=settings.dtype,
            threads=settings.threads,
            slot_tokens=settings.context,
            drafting=self._config.engine.drafting,
            fingerprint=tokenizer.fingerprint,
            line_ends=tokenizer.line_ends,
        )

    def _serve(self, files: ModelFiles, tokenizer: Tokenizer, ready: Ready) -> Serving:
        from atlasd.completion.chat import ChatTemplate
        from atlasd.completion.completer import Completer

        special = _named_tokens(tokenizer)
        return Serving(
            name=files.name,
            engine=self.engine,
            tokenizer=tokenizer,
            completer=Completer(
                self.engine,
                tokenizer,
                self._workspace,
                self._store,
                files.name,
                config=files.config,
                slot_tokens=ready.slot_tokens,
                special=special,
                measured=self._meter.add,
            ),
            chat=ChatTemplate(tokenizer.chat_template, special),
            slots=ready.slots,
            slot_tokens=ready.slot_tokens,
            created=int(time.time()),
        )

    # What the engine says

    def _heard(self, notice: Notice) -> None:
        match notice:
            case Ready() if self._workspace is not None:
                self._workspace.engine_started()
            case Learned() if self._keeper is not None:
                self._run(self._keeper.keep(notice))
            case Stopped(message=message) if message:
                self._meter.engine_restarts += 1
                log.error("%s", message)
            case Failed():
                log.error("%s %s", notice.message, notice.hint)

    def _run(self, errand: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(errand)
        self._errands.add(task)
        task.add_done_callback(self._errands.discard)


def _read_tokenizer(files: ModelFiles) -> Tokenizer:
    from atlasd.models.tokenizer import Tokenizer

    return Tokenizer.load(files)


def _named_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens that chat templates refer to."""

    def first(ids: list[int]) -> str:
        return (tokenizer.token_text(ids[0]) or "") if ids else ""

    bos, eos = first(tokenizer.prefix_ids), first(tokenizer.eos_ids)
    return {"bos_token": bos, "eos_token": eos, "pad_token": "", "unk_token": ""}
