"""The static drafter in replay: the bundled one itself, at a given price of a token.

It drafts from what a stream has so far, as in the engine, and begins with the state that chose the
last token where it carries states: the bundled target reads the recorded text teacher-forced,
once. What the target would have said instead is not asked.

Which price? What a step of one row costs on a GPU is reading weights. A drafter of one layer with
a head of 32,000 tokens beside an 8B Llama reads 0.37 of 7.5 billion: a twentieth, 0.6 ms of a step
of 12 ms. A model of 0.5B beside one of 7B reads a fifteenth in many small layers: a tenth, 1.2 ms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from time import thread_time

import numpy as np

from atlasd.draft.drafter import Float32, Int32, StreamView
from atlasd.draft.lookahead import Chain, ChainModel, Chains, Lookahead
from atlasd.draft.neural import Neural
from atlasd.draft.states import States
from atlasd.draft.static import chain_model, head_tokens, load_extras
from atlasd.models.decoder import Decoder, kept_states
from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import find_model
from atlasd.paths import paths
from bench.replay.workload import Request

_ROWS = 64
_CONTEXT, _WINDOW = 1024, 1024
"""Tokens that are read again before every so many of a text."""


class TargetStates:
    """The states of a target that chose the tokens of recorded texts."""

    def __init__(self, decoder: Decoder) -> None:
        """``decoder`` keeps its states (``CpuDecoder.keep_states``)."""
        self._decoder = decoder
        self._known: dict[int, Float32] = {}

    def of(self, prompt: Sequence[int], text: Sequence[int]) -> Float32:
        """A state [len(text), hidden] for each token of ``text``, read behind ``prompt``."""
        key = hash((tuple(prompt), tuple(text)))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._read(np.array([*prompt, *text], np.int32), len(prompt))
        return known

    def _read(self, tokens: Int32, first: int) -> Float32:
        found = []
        for begin in range(first, len(tokens), _WINDOW):
            start = max(0, begin - _CONTEXT)
            end = min(begin + _WINDOW, len(tokens))
            # The row before a token chose it.
            found.append(self._rows_from(tokens[start : end - 1], begin - start - 1))
        return np.concatenate(found)

    def _rows_from(self, tokens: Int32, first: int) -> Float32:
        """The states of rows ``first`` and later."""
        found = []
        for begin in range(0, len(tokens), _ROWS):
            rows = tokens[begin : begin + _ROWS]
            positions = np.arange(begin, begin + len(rows), dtype=np.int32)
            wanted = np.arange(max(0, first - begin), len(rows), dtype=np.int32)
            self._decoder.forward(rows, np.zeros_like(rows), positions, wanted)
            states = kept_states(self._decoder)
            if len(wanted) and states is not None:
                found.append(states.copy())
        return np.concatenate(found)


class Priced:
    """A ``ChainModel`` whose drafting is paid for at a given price, whatever it takes here."""

    def __init__(self, model: ChainModel, token_ms: float) -> None:
        self.model = model
        self.slots, self.slot_tokens, self.carries = model.slots, model.slot_tokens, model.carries
        self.token_ms = token_ms
        self.spent_ms = 0.0
        """The price of drafting, so far."""
        self.took_s = 0.0
        """Processor time that it took here."""

    def read(self, tokens: Int32, slot: int, position: int) -> None:
        """Free: what a stream verifies is read along with the target's own rows."""
        began = thread_time()
        self.model.read(tokens, slot, position)
        self.took_s += thread_time() - began

    def chain(self, ask: Lookahead) -> Chain:
        """The chain, paid by ``pay``."""
        return self.pay(self.model, ask)

    def pay(self, chains: Chains, ask: Lookahead) -> Chain:
        """A chain by the model or a correction of it. One that ends before its limit is a token
        dearer than it is long: the token that ends it is not returned."""
        began = thread_time()
        drafted = chains.chain(ask)
        self.took_s += thread_time() - began
        self.spent_ms += self.token_ms * min(len(drafted[0]) + 1, ask.limit)
        return drafted

    def memory_bytes(self) -> dict[str, int]:
        """As the model says."""
        return self.model.memory_bytes()


@dataclass(frozen=True)
class Paid:
    """Chains of a corrected model, at the model's price."""

    model: Priced
    chains: Chains

    def chain(self, ask: Lookahead) -> Chain:
        """The chain, paid by the model."""
        return self.model.pay(self.chains, ask)


class Static:
    """A priced drafter, and the target's states for the streams that it drafts for."""

    def __init__(self, model: Priced, states: TargetStates | None = None) -> None:
        """``states`` None: the target keeps none."""
        self.model = model
        self._states = states
        self._chose: Float32 | None = None

    def begin(self, stream: StreamView, request: Request) -> None:
        """A stream of this request starts."""
        if self._states is not None:
            self._chose = self._states.of(request.prompt, request.text)
            stream.states = States(self._chose.shape[1])

    def follow(self, stream: StreamView, at: int, count: int) -> None:
        """``count`` tokens of the text, from ``at`` on, are being verified."""
        if stream.states is not None and self._chose is not None:
            stream.states.put(stream.prompt_length + at, self._chose[at : at + count])


class Eager(Neural):
    """Asked at every step, whatever it costs: for measuring its confidence."""

    def gain(
        self, stream: StreamView, reach: float, tokens_per_ms: float, known: float = 0.0
    ) -> float:
        """Always worth it."""
        return float("inf")


def priced_neural(model: Priced, eager: bool = False) -> Neural:
    """A drafter whose clock is the model's price."""
    neural = (Eager if eager else Neural)(model, now=lambda: model.spent_ms / 1e3)
    neural.token_ms, neural.read_ms = model.token_ms, 0.0
    return neural


def bundled_static(token_ms: float) -> Static:
    """The bundled static drafter at this price of a token; reading it again costs nothing."""
    model, states = _bundled()
    return Static(Priced(model, token_ms), states)


@cache
def _bundled() -> tuple[ChainModel, TargetStates]:
    target_files = find_model(None, paths())
    files = find_model(str(target_files.path.parent / "drafter"), paths())
    options = LoadOptions(slots=1, slot_tokens=_CONTEXT + _WINDOW, threads=1)
    drafter = load_decoder(files, options).decoder
    load_extras(drafter, files.path)
    target = load_decoder(target_files, options).decoder
    target.keep_states()  # type: ignore[attr-defined]
    return chain_model(drafter, head_tokens(files.path)), TargetStates(target)
