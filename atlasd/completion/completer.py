"""From a cursor to a suggestion: the one way every editor and API takes."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal

import msgspec

from atlasd.completion.ahead import Ahead
from atlasd.completion.cache import Hit, TypeThrough, wanted
from atlasd.completion.chat import ChatTemplate
from atlasd.completion.decoding import Decoded, Decoding
from atlasd.completion.families import declared_orders
from atlasd.completion.fates import Fates
from atlasd.completion.flights import Flight, Flights, Superseded
from atlasd.completion.healing import Healer
from atlasd.completion.hole_filler import HoleFiller
from atlasd.completion.nothing import SUPERSEDED, WITHDRAWN, Nothing, reason_of
from atlasd.completion.ports import Engine, Store, TextTokenizer, Workspace
from atlasd.completion.prompt import PromptBuilder
from atlasd.completion.record import Given, Origin, origin_of, repository_of
from atlasd.completion.remembering import RememberingTokenizer
from atlasd.completion.request import Completion, CompletionRequest
from atlasd.completion.templates import Prompt, template_for
from atlasd.completion.trim import Place
from atlasd.completion.trim.brackets import replaced_right
from atlasd.engine.protocol import Priority, Sampling, StreamStats
from atlasd.errors import AtlasdError

SLOT_TOKENS = 4096

Source = Literal["model", "type-through", "ahead"]

Measured = Callable[[StreamStats, str | None], None]


class Completer:
    """Completes at cursors; one per daemon and loaded model.

    ``model`` is its name, as shown to users; ``config`` is the model's configuration, of which
    ``atlasd.fim_orders`` is read; ``slot_tokens`` bounds prompt plus answer. ``measured`` is told
    the statistics and the repository of every stream that was read to its end, whatever became of
    its text: shown, trimmed to nothing, decoded ahead in vain.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: TextTokenizer,
        workspace: Workspace | None,
        store: Store | None,
        model: str,
        *,
        config: Mapping[str, Any] | None = None,
        slot_tokens: int | None = None,
        special: Mapping[str, str] | None = None,
        measured: Measured = lambda stats, repository: None,
    ) -> None:
        self._engine = engine
        self._tokenizer = RememberingTokenizer(tokenizer)
        self._model = model
        chat = ChatTemplate(tokenizer.chat_template, special)
        template = template_for(
            self._tokenizer, declared_orders(config), HoleFiller(self._tokenizer, chat)
        )
        slot = slot_tokens or SLOT_TOKENS
        self._builder = PromptBuilder(self._tokenizer, template, workspace, slot)
        self._healer = Healer(self._tokenizer)
        self._cache: TypeThrough[Origin] = TypeThrough()
        self._fates = Fates(engine, self._tokenizer, store)
        self._ahead = Ahead(self._decode_ahead, self._settle_ahead)
        self._flights = Flights()
        self._measured = measured
        self._nothing: Nothing | None = None
        """The last request, if it was answered with nothing."""
        self._counts: Counter[str] = Counter()

    @property
    def template(self) -> str:
        """The name of the template in use."""
        return self._builder.template.name

    async def complete(self, request: CompletionRequest) -> Completion | None:
        """The suggestion at the cursor, or None where there is nothing worth showing.

        Raises Superseded when a newer request with the same ``document`` came in, EngineError
        when the engine failed. Cancelling the task cancels the stream.
        """
        self._counts["requests"] += 1
        started = time.perf_counter()
        request = request.with_plain_line_ends()
        flight = self._flights.begin(request)
        flight.task = asyncio.create_task(self._answer(request, flight, started))
        try:
            return await flight.task
        except asyncio.CancelledError:
            left = asyncio.current_task()
            if flight.superseded and left is not None and not left.cancelling():
                self._counts["superseded"] += 1
                self._note(request, SUPERSEDED, None, started)
                raise Superseded from None
            if flight.decoding is not None:
                flight.decoding.cancel()
            self._note(request, WITHDRAWN, None, started)
            raise
        except AtlasdError as error:
            self._note(request, error.message, None, started)
            raise
        finally:
            self._flights.end(request, flight)

    async def choices(self, request: CompletionRequest, count: int) -> list[Completion]:
        """Up to ``count`` different suggestions, the one ``complete`` gives first."""
        asked = [replace(request, sampling=_choice(request, index)) for index in range(count)]
        # Only the first stands for the document: the choices must not overtake each other.
        alone = [asked[0], *(replace(one, document=None) for one in asked[1:])]
        tasks = [asyncio.ensure_future(self.complete(one)) for one in alone]
        try:
            found = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        distinct: dict[str, Completion] = {}
        for one in found:
            if one is not None:
                distinct.setdefault(one.text, one)
        if distinct:
            self._nothing = None
        return list(distinct.values())

    def raw_prompt(self, request: CompletionRequest) -> Prompt:
        """The prompt alone, for APIs that stream or score the model's text as it comes."""
        return self._builder.build(request.with_plain_line_ends()).prompt

    async def fate(self, id: str, fate: str, accepted_length: int | None = None) -> None:
        """What became of a suggestion: shown, accepted, accepted_word, accepted_line, dismissed
        or superseded. ``accepted_length`` counts characters from the start, cumulatively."""
        await self._fates.tell(id, fate, accepted_length)
        self._counts[fate] += 1

    def why(self, id: str | None = None) -> dict[str, object] | None:
        """How a suggestion (the last one without ``id``) came about: prompt parts with token
        counts, trimming rules, statistics, and ``stream`` to ask the engine about its steps; and
        ``nothing`` for the reason, if the last request was answered with nothing."""
        nothing = self._nothing
        if nothing is not None and id in (None, nothing.id):
            return nothing.why()
        given = self._fates.find(id)
        return given.why() if given is not None else None

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the start: requests, answered from which source, superseded, empty."""
        return {
            **self._counts,
            "remembered": len(self._cache),
            "remembered_bytes": self._cache.bytes,
        }

    def clear(self) -> None:
        """Forget suggestions kept in memory and end what is decoded ahead (pause, purge)."""
        self._ahead.cancel()
        self._cache.clear()
        self._fates.clear()
        self._nothing = None
        self._builder.clear()

    # Answering

    async def _answer(
        self,
        request: CompletionRequest,
        flight: Flight,
        started: float,
    ) -> Completion | None:
        if hit := self._remembered(request):
            if flight.decoding is not None:
                flight.decoding.cancel()
            return self._offer_rest(request, hit, None, started)
        ahead = flight.taken is None
        if ahead and request.trim and (taken := self._ahead.take(request)) is not None:
            flight.decoding, flight.taken = taken
        if flight.decoding is not None and flight.taken is not None:
            if await flight.decoding.runs_along(flight.taken):
                stats = (await self._settle(flight.decoding, ahead)).stats
                if hit := self._remembered(request):
                    return self._offer_rest(request, hit, stats, started)
            flight.decoding.cancel()
        self._ahead.cancel()
        flight.decoding = decoding = self._decode(request, Priority.COMPLETION)
        decoded = await self._settle(decoding, ahead=False)
        origin = origin_of(decoding, decoded, self.template, ahead=False)
        return self._offer(
            request, decoded.text, decoded.replace_right, origin, "model", decoded.stats, started
        )

    def _decode(self, request: CompletionRequest, priority: Priority) -> Decoding:
        built = self._builder.build(request)
        place = Place(
            prefix=request.prefix,
            suffix=request.suffix,
            language=built.language,
            single_line=request.single_line,
            indent=request.indent,
            invoked=request.invoked,
            markers=self._builder.template.markers,
        )
        return Decoding(
            self._engine, self._tokenizer, self._healer, request, built, place, priority
        )

    def _decode_ahead(self, request: CompletionRequest) -> Decoding | None:
        if self._engine.state != "ready":
            # A stopped engine would be started by it, and nobody asked.
            return None
        self._counts["decoded_ahead"] += 1
        return self._decode(request, Priority.AHEAD)

    async def _settle(self, decoding: Decoding, ahead: bool) -> Decoded:
        """Wait for a decoding and remember what came of it."""
        decoded = await decoding.result()
        self._builder.budget.observe(decoded.stats)
        self._measured(decoded.stats, repository_of(decoding))
        if decoding.request.trim:
            self._remember(decoding, decoded, ahead)
        return decoded

    def _settle_ahead(self, decoding: Decoding, decoded: Decoded) -> None:
        self._measured(decoded.stats, repository_of(decoding))
        self._remember(decoding, decoded, ahead=True)

    def _remember(self, decoding: Decoding, decoded: Decoded, ahead: bool) -> None:
        request = decoding.request
        origin = origin_of(decoding, decoded, self.template, ahead)
        self._cache.put(
            wanted(request),
            request.prefix,
            request.suffix,
            decoded.text,
            decoded.replace_right,
            origin,
        )

    def _remembered(self, request: CompletionRequest) -> Hit[Origin] | None:
        if not request.trim:
            return None
        hit = self._cache.find(wanted(request), request.prefix, request.suffix)
        # Nothing to suggest by itself may still be something when asked for by hand.
        return None if hit and not hit.text and request.invoked else hit

    def _offer_rest(
        self,
        request: CompletionRequest,
        hit: Hit[Origin],
        stats: StreamStats | None,
        started: float,
    ) -> Completion | None:
        origin, right = hit.entry.origin, hit.entry.replace_right
        if hit.closed:
            right = replaced_right(Place(request.prefix, request.suffix, origin.language), hit.text)
        source: Source = "ahead" if origin.ahead else "type-through" if stats is None else "model"
        return self._offer(request, hit.text, right, origin, source, stats, started)

    def _offer(
        self,
        request: CompletionRequest,
        text: str,
        right: int,
        origin: Origin,
        source: Source,
        stats: StreamStats | None,
        started: float,
    ) -> Completion | None:
        """Hand a suggestion out and begin to think about the next one."""
        self._counts[source] += 1
        if not text:
            self._counts["empty"] += 1
            self._note(request, reason_of(origin, source != "model"), origin, started)
            return None
        self._nothing = None
        completion = Completion(
            id=uuid.uuid4().hex,
            text=text,
            replace_right=right,
            source=source,
            finish_reason=origin.finish_reason,
            stats=stats or StreamStats(),
            prompt_tokens=origin.prompt_tokens,
            model=self._model,
            trimmed_by=origin.rules,
            total_ms=(time.perf_counter() - started) * 1000,
        )
        self._fates.hand_out(Given(completion, request, origin))
        if request.trim and request.sampling.choice == 0:
            self._ahead.follow(request, text, right)
        return completion

    def _note(
        self, request: CompletionRequest, reason: str, origin: Origin | None, started: float
    ) -> None:
        spent_ms = (time.perf_counter() - started) * 1000
        self._nothing = Nothing(request, reason, self._model, origin, spent_ms)


def _choice(request: CompletionRequest, index: int) -> Sampling:
    sampling = msgspec.structs.replace(request.sampling, choice=index)
    if index == 0 and request.trim:
        return msgspec.structs.replace(sampling, temperature=0.0)
    return sampling
