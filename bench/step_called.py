"""Steps as the engine takes them: several in one native call.

Between the steps of a call nothing is said to Python, and the other threads wait awake; so this is
what rows cost in use, where a step that is called by itself also pays for its call and for waking.
"""

from __future__ import annotations

import ctypes
import dataclasses
import statistics
from collections.abc import Mapping, Sequence

from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.cpu import multistep as native

from bench.report import table
from bench.step_busy import busy_processor

STEPS = 16
"""In a call."""
LONG_MS = 1e4


@dataclasses.dataclass
class CalledStep:
    """Milliseconds of one step, the mean over a call: all of its rows, and the matmuls in them."""

    forward: float
    matmul: float


class Called:
    """Steps of so many rows behind ``context`` tokens: of as many plain streams, one behind the
    other in one slot, as the rows of a draft are."""

    def __init__(self, decoder: CpuDecoder, rows: int, context: int) -> None:
        self._decoder, self._context = decoder, context
        take = native.take_steps()
        assert take is not None, "the decoder is native, and so is this"
        self._take = take
        self._streams = (native.StreamSteps * rows)()
        for stream in self._streams:
            stream.length, stream.left = context + 1, 1 << 20
        self._steps = native.Steps(
            decoder=decoder.handle.value,
            streams=ctypes.addressof(self._streams),
            budget_ms=LONG_MS,
            count=rows,
            vocab=decoder.vocab_size,
            hidden=decoder.spec.hidden_size,
            steps=STEPS,
        )

    def call(self) -> float:
        """Milliseconds of a step, the mean over one call. Every call begins alike."""
        for row, stream in enumerate(self._streams):
            stream.fed, stream.token = self._context + row, 5
        self._steps.logits = self._decoder.logits_of(len(self._streams))
        problem = self._take(ctypes.addressof(self._steps))
        assert problem is None, problem
        return float(self._steps.plain_ms) / int(self._steps.taken)

    def step(self, profile_first: bool) -> CalledStep:
        """Without a profile, and the matmuls with one."""
        found: dict[bool, float] = {}
        before = self._decoder.profile()["matmul"]
        for profiling in (profile_first, not profile_first):
            self._decoder.set_profiling(profiling)
            found[profiling] = self.call()
        self._decoder.set_profiling(False)
        matmul = (self._decoder.profile()["matmul"] - before) * 1e3 / self._steps.taken
        return CalledStep(found[False], matmul)


def called_table(
    decoders: Mapping[tuple[str, int], CpuDecoder],
    rows: Sequence[int],
    rounds: int,
    context: int,
    *,
    busy: bool,
) -> str:
    """Per number of rows; with ``busy`` also beside a program that keeps one processor busy."""
    asked = {(*key, n): Called(one, n, context) for key, one in decoders.items() for n in rows}
    steps: dict[tuple[str, int, int], list[CalledStep]] = {key: [] for key in asked}
    beside: dict[tuple[str, int, int], list[float]] = {key: [] for key in asked}
    for number in range(rounds):
        for key, called in asked.items():
            called.call()
            steps[key].append(called.step(bool(number % 2)))
        if busy:
            with busy_processor():
                for key, called in asked.items():
                    called.call()
                    beside[key].append(called.call() / steps[key][-1].forward)
    lines: list[list[object]] = []
    for (weight_format, threads, count), found in steps.items():
        first = steps[weight_format, threads, rows[0]]
        ratios = (
            [one.forward / one.matmul for one in found],
            [one.forward / plain.forward for one, plain in zip(found, first, strict=True)],
            beside[weight_format, threads, count],
        )
        medians = [f"{statistics.median(values):.2f}" if values else "" for values in ratios]
        took = statistics.median(one.forward for one in found)
        lines.append([weight_format, threads, count, f"{took:.3f}", *medians])
    header = ["weights", "threads", "rows", "ms", "step / matmuls", f"/ {rows[0]} row"]
    title = f"Steps as the engine takes them, {STEPS} in a native call, at {context} tokens"
    return table(title, [*header, "one processor busy / none"], lines)
