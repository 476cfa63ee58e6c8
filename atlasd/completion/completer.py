"""From a cursor to a suggestion: the one way every editor and API takes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgspec

from atlasd.completion.ahead import Ahead
from atlasd.completion.chat import ChatTemplate
from atlasd.completion.decoding import Decoded, Decoding
from atlasd.completion.families import declared_orders
from atlasd.completion.fates import Fates
from atlasd.completion.flights import Flight, Flights, Superseded
from atlasd.completion.healing import Healer
from atlasd.completion.hole_filler import HoleFiller
from atlasd.completion.nothing import SUPERSEDED, WITHDRAWN
from atlasd.completion.offers import Offers
from atlasd.completion.ports import Engine, Store, TextTokenizer, Workspace
from atlasd.completion.prompt import Built, PromptBuilder
from atlasd.completion.remembering import RememberingTokenizer
from atlasd.completion.request import Completion, CompletionRequest
from atlasd.completion.templates import template_for
from atlasd.completion.trim import Place
from atlasd.engine.protocol import Priority, Sampling, StreamStats
from atlasd.errors import AtlasdError

SLOT_TOKENS = 4096

Measured = Callable[[StreamStats, str | None, str | None], None]


class Completer:
    """Completes at cursors; one per daemon and loaded model.

    ``model`` is its name, as shown to users; ``config`` is the model's configuration, of which
    ``atlasd.fim_orders`` is read; ``slot_tokens`` bounds prompt plus answer. ``measured`` is told
    the statistics, the end's reason and the repository of every stream that was read to its end,
    whatever became of its text (shown, trimmed to nothing, decoded ahead in vain), and of those
    that were ``cancelled`` while somebody waited for them.
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
        measured: Measured = lambda stats, reason, repository: None,
    ) -> None:
        self._engine = engine
        self._tokenizer = RememberingTokenizer(tokenizer)
        chat = ChatTemplate(tokenizer.chat_template, special)
        template = template_for(
            self._tokenizer, declared_orders(config), HoleFiller(self._tokenizer, chat)
        )
        slot = slot_tokens or SLOT_TOKENS
        self._builder = PromptBuilder(self._tokenizer, template, workspace, slot)
        self._healer = Healer(self._tokenizer)
        fates = Fates(engine, self._tokenizer, store)
        self._offers = Offers(fates, model, template.name)
        self._ahead = Ahead(self._decode_ahead, self._settle_ahead)
        self._flights = Flights()
        self._measured = measured

    @property
    def template(self) -> str:
        """The name of the template in use."""
        return self._builder.template.name

    async def complete(self, request: CompletionRequest) -> Completion | None:
        """The suggestion at the cursor, or None where there is nothing worth showing.

        Raises Superseded when a newer request with the same ``document`` came in, EngineError
        when the engine failed. Cancelling the task cancels the stream.
        """
        self._offers.counts["requests"] += 1
        started = time.perf_counter()
        request = request.with_plain_line_ends()
        flight = self._flights.begin(request)
        flight.task = asyncio.create_task(self._answer(request, flight, started))
        try:
            return await flight.task
        except asyncio.CancelledError:
            left = asyncio.current_task()
            if flight.superseded and left is not None and not left.cancelling():
                self._offers.counts["superseded"] += 1
                self._offers.give_nothing(request, SUPERSEDED, started)
                raise Superseded from None
            if flight.decoding is not None:
                flight.decoding.cancel()
            self._offers.give_nothing(request, WITHDRAWN, started)
            raise
        except AtlasdError as error:
            self._offers.give_nothing(request, error.message, started)
            raise
        finally:
            self._flights.end(request, flight)

    async def choices(self, request: CompletionRequest, count: int) -> list[Completion]:
        """Up to ``count`` different suggestions, the one ``complete`` gives first."""
        if count == 1:
            only = await self.complete(request)
            return [] if only is None else [only]
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
            self._offers.give_others()
        return list(distinct.values())

    def build(self, request: CompletionRequest) -> Built:
        """The prompt alone, for APIs that stream or score the model's text as it comes."""
        return self._builder.build(request.with_plain_line_ends())

    def keeps(self, path: str, repository: str | None) -> bool:
        """Whether anything may be kept of what is asked about a file, whose path is absolute or
        relative to the root ``repository``: not if it is ignored or one that is never read."""
        return self._builder.keeps(
            CompletionRequest("", "", path=path, repository=repository, trusted=True)
        )

    async def fate(self, id: str, fate: str, accepted_length: int | None = None) -> None:
        """What became of a suggestion: shown, accepted, accepted_word, accepted_line, dismissed
        or superseded. ``accepted_length`` counts characters from the start, cumulatively."""
        await self._offers.tell(id, fate, accepted_length)

    def why(self, id: str | None = None) -> dict[str, object] | None:
        """How a suggestion (the last one without ``id``) came about: prompt parts with token
        counts, trimming rules, statistics, and ``stream`` to ask the engine about its steps; and
        ``nothing`` for the reason, if the last request was answered with nothing."""
        return self._offers.why(id)

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the start: requests, answered from which source, superseded, empty."""
        return self._offers.stats

    def clear(self) -> None:
        """Forget all text kept in memory and end what is decoded ahead (pause, purge)."""
        self._ahead.cancel()
        self._offers.clear()
        self._builder.clear()
        self._tokenizer.clear()

    # Answering

    async def _answer(
        self, request: CompletionRequest, flight: Flight, started: float
    ) -> Completion | None:
        """Suggest something, and begin to think about what would follow it."""
        completion = await self._found(request, flight, started)
        if completion is not None and request.trim and request.sampling.choice == 0:
            self._ahead.follow(request, completion.text, completion.replace_right)
        return completion

    async def _found(
        self, request: CompletionRequest, flight: Flight, started: float
    ) -> Completion | None:
        """From memory, from what is being decoded already, or from the model."""
        if hit := self._offers.remembered(request):
            if flight.decoding is not None:
                flight.decoding.cancel()
            return self._offers.give_rest(request, hit, None, started)
        ahead = flight.taken is None
        if ahead and request.trim and (taken := self._ahead.take(request)) is not None:
            flight.decoding, flight.taken = taken
        if flight.decoding is not None and flight.taken is not None:
            if await flight.decoding.runs_along(flight.taken):
                stats = (await self._settle(flight.decoding, ahead)).stats
                if hit := self._offers.remembered(request):
                    return self._offers.give_rest(request, hit, stats, started)
            flight.decoding.cancel()
        self._ahead.cancel()
        flight.decoding = decoding = self._decode(request, Priority.COMPLETION)
        decoded = await self._settle(decoding, ahead=False)
        return self._offers.give_decoded(request, decoding, decoded, started)

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
            self._engine,
            self._tokenizer,
            self._healer,
            request,
            built,
            place,
            priority,
            withdrawn=lambda stats: self._measured(stats, "cancelled", built.repository),
        )

    def _decode_ahead(self, request: CompletionRequest) -> Decoding | None:
        if self._engine.state != "ready":
            # A stopped engine would be started by it, and nobody asked.
            return None
        self._offers.counts["decoded_ahead"] += 1
        return self._decode(request, Priority.AHEAD)

    async def _settle(self, decoding: Decoding, ahead: bool) -> Decoded:
        """Wait for a decoding and remember what came of it."""
        decoded = await decoding.result()
        self._builder.budget.observe(decoded.stats)
        self._measured(decoded.stats, decoded.finish_reason, decoding.built.repository)
        self._offers.remember(decoding, decoded, ahead=ahead)
        return decoded

    def _settle_ahead(self, decoding: Decoding, decoded: Decoded) -> None:
        self._measured(decoded.stats, decoded.finish_reason, decoding.built.repository)
        self._offers.remember(decoding, decoded, ahead=True)


def _choice(request: CompletionRequest, index: int) -> Sampling:
    """The first of several suggestions is the likeliest one, found again like any other."""
    sampling = msgspec.structs.replace(request.sampling, choice=index)
    if index == 0 and request.trim:
        return msgspec.structs.replace(sampling, temperature=0.0, seed=0)
    return sampling
