"""What was suggested: found again where it fits, handed out under an id, and explained."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Literal

from atlasd.completion.cache import Hit, TypeThrough, wanted
from atlasd.completion.decoding import Decoded, Decoding
from atlasd.completion.fates import Fates
from atlasd.completion.nothing import Nothing, reason_of
from atlasd.completion.record import Given, Origin, origin_of
from atlasd.completion.request import Completion, CompletionRequest
from atlasd.completion.trim import Place
from atlasd.completion.trim.brackets import replaced_right
from atlasd.engine.protocol import StreamStats

Source = Literal["model", "type-through", "ahead"]


class Offers:
    """The type-through cache and the fates of one model. ``model`` and ``template`` are its name
    and that of its template, as ``why`` shows them. ``started`` is always the ``perf_counter`` at
    which the request came."""

    def __init__(self, fates: Fates, model: str, template: str) -> None:
        self.counts: Counter[str] = Counter()
        self._fates = fates
        self._model = model
        self._template = template
        self._cache: TypeThrough[Origin] = TypeThrough()
        self._nothing: Nothing | None = None
        """The last request, if it was answered with nothing."""

    def remember(self, decoding: Decoding, decoded: Decoded, *, ahead: bool) -> None:
        """Keep what a decoding came to, also where that is nothing; ``ahead`` of its being asked
        for. What is not trimmed is no suggestion, and is not kept."""
        request = decoding.request
        if request.trim:
            self._cache.put(
                wanted(request),
                request.prefix,
                request.suffix,
                decoded.text,
                decoded.replace_right,
                origin_of(decoding, decoded, self._template, ahead),
            )

    def remembered(self, request: CompletionRequest) -> Hit[Origin] | None:
        """A suggestion that fits the text around the cursor."""
        if not request.trim:
            return None
        hit = self._cache.find(wanted(request), request.prefix, request.suffix)
        if hit is None or not hit.entry.origin.serves(request.max_tokens):
            return None
        # Nothing to suggest by itself may still be something when asked for by hand.
        return None if not hit.text and request.invoked else hit

    def give_rest(
        self,
        request: CompletionRequest,
        hit: Hit[Origin],
        stats: StreamStats | None,
        started: float,
    ) -> Completion | None:
        """Hand out what is left of a remembered suggestion. ``stats`` are those of its decoding,
        if that was for this request."""
        origin, right = hit.entry.origin, hit.entry.replace_right
        if hit.closed:
            right = replaced_right(Place(request.prefix, request.suffix, origin.language), hit.text)
        source: Source = "ahead" if origin.ahead else "type-through" if stats is None else "model"
        return self._give(request, hit.text, right, origin, source, stats, started)

    def give_decoded(
        self, request: CompletionRequest, decoding: Decoding, decoded: Decoded, started: float
    ) -> Completion | None:
        """Hand out what was decoded for this request."""
        origin = origin_of(decoding, decoded, self._template, ahead=False)
        text, right = decoded.text, decoded.replace_right
        return self._give(request, text, right, origin, "model", decoded.stats, started)

    def give_nothing(
        self,
        request: CompletionRequest,
        reason: str,
        started: float,
        origin: Origin | None = None,
    ) -> None:
        """The request is answered with nothing; ``why`` tells the reason."""
        spent_ms = (time.perf_counter() - started) * 1000
        asked = request.without_document()
        self._nothing = Nothing(asked, reason, self._model, origin, spent_ms)

    def give_others(self) -> None:
        """Of several choices some were given, so the last request was answered with something."""
        self._nothing = None

    async def tell(self, id: str, fate: str, accepted_length: int | None) -> None:
        """What became of a suggestion; see ``Completer.fate``."""
        await self._fates.tell(id, fate, accepted_length)
        self.counts[fate] += 1

    def why(self, id: str | None) -> dict[str, object] | None:
        """See ``Completer.why``."""
        nothing = self._nothing
        if nothing is not None and id in (None, nothing.id):
            return nothing.why()
        given = self._fates.find(id)
        return given.why() if given is not None else None

    @property
    def stats(self) -> dict[str, float]:
        return {
            **self.counts,
            "remembered": len(self._cache),
            "remembered_bytes": self._cache.bytes,
        }

    def clear(self) -> None:
        """Forget all suggestions."""
        self._cache.clear()
        self._fates.clear()
        self._nothing = None

    def _give(
        self,
        request: CompletionRequest,
        text: str,
        right: int,
        origin: Origin,
        source: Source,
        stats: StreamStats | None,
        started: float,
    ) -> Completion | None:
        self.counts[source] += 1
        if not text:
            self.counts["empty"] += 1
            self.give_nothing(request, reason_of(origin, source != "model"), started, origin)
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
        self._fates.hand_out(Given(completion, request.without_document(), origin))
        return completion
