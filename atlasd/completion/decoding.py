"""One suggestion being decoded: from its prompt to its trimmed text, in a task of its own, so that
whoever asked may leave and somebody else take over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from atlasd.completion.generate import Generation, generate
from atlasd.completion.healing import Healer, with_healing
from atlasd.completion.ports import Engine, TextTokenizer
from atlasd.completion.prompt import Built
from atlasd.completion.request import CompletionRequest
from atlasd.completion.trim import Place, Trimmed, Watch, trim
from atlasd.engine.protocol import Priority, StreamStats
from atlasd.errors import EngineError


@dataclass(frozen=True)
class Decoded:
    """The end of it. ``text`` is empty where there is nothing to suggest."""

    text: str
    replace_right: int
    rules: tuple[str, ...]
    raw: str
    finish_reason: str
    stats: StreamStats
    stream: int


class Decoding:
    """Starts at once; ``result`` may be awaited by several, and none of them cancels it."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: TextTokenizer,
        healer: Healer,
        request: CompletionRequest,
        built: Built,
        place: Place,
        priority: Priority = Priority.COMPLETION,
        withdrawn: Callable[[StreamStats], object] = lambda stats: None,
    ) -> None:
        """``withdrawn`` is told what is known of a stream that somebody waited for and that was
        cancelled."""
        self.request = request
        self.built = built
        self.place = place
        self.raw = ""
        self._engine = engine
        self._tokenizer = tokenizer
        self._healer = healer
        self._priority = priority
        self._withdrawn = withdrawn
        self._begun = False
        self._generation: Generation | None = None
        self._healing: list[StreamStats] = []
        self._grew = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)

    @property
    def done(self) -> bool:
        return self._task.done()

    async def result(self) -> Decoded:
        """What came of it. Raises EngineError, or CancelledError after ``cancel``."""
        return await asyncio.shield(self._task)

    def promote(self) -> None:
        """It was asked for: let it be decoded like anything that somebody waits for."""
        self._priority = Priority.COMPLETION
        if self._generation is not None:
            self._generation.stream.promote(Priority.COMPLETION)

    def cancel(self) -> None:
        self._task.cancel()

    async def runs_along(self, typed: str) -> bool:
        """Wait until it is clear whether the text begins with what has been typed meanwhile."""
        while True:
            if not self.raw.startswith(typed[: len(self.raw)]):
                return False
            if len(self.raw) > len(typed) or self.done:
                return len(self.raw) > len(typed)
            self._grew.clear()
            await self._grew.wait()

    async def _run(self) -> Decoded:
        self._begun = True
        request, place = self.request, self.place
        watch = Watch(place) if request.trim else None
        async with await self._generate() as generation:
            started = time.monotonic()
            async for chunk in generation:
                self.raw += chunk.text
                self._grew.set()
                ended = watch is not None and watch.feed(chunk.text)
                if ended or out_of_time(request.max_ms, started, self.raw):
                    await generation.finish()
                    break
        reason = generation.finish_reason or "stop"
        if reason == "cancelled":
            # Whoever cancels a decoding cancels its task: this was the engine being stopped.
            raise EngineError("The model was unloaded in the middle of this.", "Ask again.")
        trimmed = Trimmed(self.raw)
        if watch is not None:
            late = out_of_time(request.max_ms, started, self.raw)
            cut_off = reason == "length" or (watch.rule is None and late)
            trimmed = trim(place, self.raw, cut_off=cut_off)
        return Decoded(
            trimmed.text,
            trimmed.replace_right,
            trimmed.rules,
            self.raw,
            reason,
            with_healing(generation.stats, self._healing),
            generation.stream.stream,
        )

    async def _generate(self) -> Generation:
        request, built = self.request, self.built
        prompt = built.prompt
        tokens, lead = prompt.tokens, b""
        if prompt.taken_back:
            chosen, lead = await self._healer.heal(
                self._engine,
                tokens,
                prompt.taken_back,
                request.sampling,
                priority=self._priority,
                learn=built.trusted,
                spent=self._healing,
            )
            tokens = [*tokens, *chosen]
        self._generation = generate(
            self._engine,
            self._tokenizer,
            tokens,
            sampling=request.sampling,
            max_tokens=request.max_tokens,
            stop=(*request.stop, *prompt.stop),
            stop_tokens=prompt.stop_tokens,
            priority=self._priority,
            repository=built.repository,
            language=built.language.id,
            drafting=request.drafting,
            learn=built.trusted,
            prefix_end=prompt.prefix_end,
            lead=lead,
        )
        return self._generation

    def _ended(self, task: asyncio.Task[Decoded]) -> None:
        self._grew.set()
        if task.cancelled():
            if self._begun and self._priority is Priority.COMPLETION:
                known = StreamStats() if self._generation is None else self._generation.stats
                self._withdrawn(with_healing(known, self._healing))
        else:
            # Fetched here, so that a failure nobody waits for is not reported as forgotten.
            task.exception()


def out_of_time(most_ms: float, started: float, text: str) -> bool:
    """Whether decoding has taken longer than it may (0: as long as it likes) since ``started`` on
    the monotonic clock, and a whole line is there."""
    return 0 < most_ms < (time.monotonic() - started) * 1000 and "\n" in text.lstrip("\n")
