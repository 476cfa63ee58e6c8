"""Steps of a stream that decodes alone, several in one native call.

A step of a small model takes half a millisecond, and Python's part of it, which finds the caches
emptied by the step before, a quarter of that. Where one stream decodes whose tokens depend on
nothing but a row's logits and its noise, steps follow each other in native code until the output
ends, a message arrives, or a few milliseconds are over. What they choose is what ``steps.Engine``
chooses one by one, and so is what is drafted and learned.
"""

from __future__ import annotations

import ctypes
from struct import Struct
from typing import Any

import numpy as np
from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.cpu import multistep as native

from atlasd.draft.drafter import Float32
from atlasd.draft.planner import SOURCES, Prepared
from atlasd.draft.taken import TakenStep, TakenSteps
from atlasd.engine.native import ChooseNatively
from atlasd.engine.sampling import ChooseRow
from atlasd.engine.streams import Stream
from atlasd.errors import EngineError
from atlasd.models.decoder import Decoder

BUDGET_MS = 3.0
"""No step begins later in a call: whoever reads the output gets it in pieces of this length."""

MOST_STEPS = native.MOST_STEPS

_EACH = Struct("@5i3d")
_REASONS = {native.STOP: "stop", native.LENGTH: "length"}


class MultiStep:
    """Native steps on one decoder. ``interrupt``: not zero once something waits for the engine."""

    def __init__(self, decoder: CpuDecoder, take: Any, interrupt: ctypes.c_int32 | None) -> None:
        self._decoder, self._take = decoder, take
        self._steps = steps = native.Steps(
            decoder=decoder.handle.value,
            interrupt=None if interrupt is None else ctypes.addressof(interrupt),
            budget_ms=BUDGET_MS,
            vocab=decoder.vocab_size,
            hidden=decoder.spec.hidden_size,
        )
        self._address = ctypes.addressof(steps)
        raw = memoryview(steps).cast("B")
        self._each = raw[native.Steps.each.offset :]
        self._tokens = raw[native.Steps.tokens.offset : native.Steps.best.offset].cast("i")
        self._chose = np.empty((0, 0), np.float32)

    @staticmethod
    def on(
        decoder: Decoder, choose: ChooseRow, interrupt: ctypes.c_int32 | None
    ) -> MultiStep | None:
        """Native steps, where decoder and choice are native."""
        take = native.take_steps()
        if take is None or not isinstance(decoder, CpuDecoder):
            return None
        return MultiStep(decoder, take, interrupt) if isinstance(choose, ChooseNatively) else None

    @staticmethod
    def suits(stream: Stream) -> bool:
        """Whether nothing but logits and noise decides this stream's tokens, one at a time."""
        return (
            stream.pending == 1
            and stream.logprobs < 0
            and stream.constraint is None
            and len(stream.stops) <= native.MOST_STOPS
            and stream.sampler.drawn is not None
        )

    def take(self, stream: Stream, most: int, prepared: Prepared | None) -> TakenSteps:
        """At most ``most`` steps, drafting as ``prepared`` (None: not at all). ``ended`` and
        ``states`` tell the rest. Raises EngineError; the stream is then as it was."""
        steps, drawn = self._steps, stream.sampler.drawn
        assert drawn is not None
        room = prepared.room if prepared is not None else 0
        steps.logits = self._decoder.logits_of(1 + room)
        self._keep(stream)
        noise = steps.noise
        noise.temperature, noise.seed, noise.choice = drawn
        noise.output_index = stream.sampler.outputs
        steps.slot, steps.fed, steps.token = stream.slot, stream.fed, stream.tokens[-1]
        steps.left, steps.room = stream.max_tokens - stream.stats.output_tokens, room
        steps.steps = min(most, MOST_STEPS)
        steps.stop_count = len(stream.stops)
        for at, token in enumerate(stream.stops):
            steps.stops[at] = token
        if prepared is None:
            steps.planner = None
        else:
            steps.planner, steps.question, steps.prices, steps.clock = prepared.addresses
        for name in ("taken", "end", "count", "unwritten", "best_count", "credits"):
            setattr(steps, name, 0)
        problem = self._take(self._address)
        if problem is not None:
            raise EngineError(f"Decoding failed: {problem.decode()}.", "See the log.")
        return self._taken(prepared is not None)

    @property
    def reason(self) -> str:
        """Why the output ended in the last call; "": it goes on."""
        return _REASONS.get(self._steps.end, "")

    @property
    def asks(self) -> bool:
        """Whether the last call ended because a drafter is wanted that Python asks."""
        ended: int = self._steps.end
        return ended == native.ASK

    @property
    def damaged(self) -> bool:
        """Whether the model produced what is no number."""
        ended: int = self._steps.end
        return ended == native.DAMAGED

    @property
    def fed(self) -> int:
        """Positions of the slot that hold the stream's tokens now."""
        fed: int = self._steps.fed
        return fed

    @property
    def others_ms(self) -> float:
        """What the last call took beside planning and rows."""
        others: float = self._steps.others_ms
        return others

    def states(self, count: int) -> Float32 | None:
        """The states [count, hidden] that chose the last call's tokens, if they are kept."""
        return self._chose[:count] if self._steps.states else None

    def _keep(self, stream: Stream) -> None:
        """Have states kept where a drafter may ask for them."""
        wanted = stream.begun or (stream.drafting and not stream.stats.output_tokens)
        kept = self._decoder.states_address if wanted else 0
        if kept and not len(self._chose):
            most = native.MOST_STEPS * native.MOST_ROWS
            self._chose = np.empty((most, self._decoder.spec.hidden_size), np.float32)
            self._steps.chose = self._chose.ctypes.data
        self._steps.states = kept or None

    def _taken(self, planned: bool) -> TakenSteps:
        steps = self._steps
        each = [
            TakenStep._make(one)
            for one in _EACH.iter_unpack(self._each[: steps.taken * _EACH.size])
        ]
        taken = TakenSteps(each, self._tokens[: steps.count].tolist(), planned)
        if planned:
            _by_source(taken.drafted, steps.drafted)
            _by_source(taken.decided, steps.decided)
            _by_source(taken.accepted, steps.accepted)
            taken.records = ctypes.string_at(steps.records, sum(one.record_bytes for one in each))
            taken.credits = list(
                zip(steps.segment[: steps.credits], steps.credit[: steps.credits], strict=True)
            )
            taken.unwritten = steps.unwritten
            taken.best = steps.best[: steps.best_count] or None
        return taken


def _by_source(counts: dict[str, int], numbers: Any) -> None:
    for at, source in enumerate(SOURCES):
        if numbers[at]:
            counts[source] = numbers[at]
            numbers[at] = 0
